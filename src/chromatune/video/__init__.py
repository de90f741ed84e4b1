"""Videos: gray frames in, colored frames out, without flicker.

video.py             what a video and a frame are
opening.py           what FFmpeg may open, and how much of it
reading.py           a video's file, or a folder of numbered frames ⇒ frames and sound
shots.py             where a video is cut
flow.py              flow between keyframes, and exposure without flicker
hint_propagation.py  hints on a frame ⇒ all keyframes of its shot
shot_colorizer.py    a shot's keyframes ⇒ the model ⇒ chroma of all its frames, cached
yuv.py               luma and chroma ⇒ planes of a frame
sound.py             sound, copied or converted
writing.py           colored frames and sound ⇒ a video's file, or a folder
options.py           options of a video, and hints by frame
run.py               all of it, in order
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
