"""Videos: gray frames in, colored frames out, without flicker.

video.py             what a video and a frame are
opening.py           what FFmpeg may open, and how much of it; which stream is the film; one time for joined parts
reading.py           a video's file, or a folder of numbered frames ⇒ frames
held_frames.py       frames for one pass after another, decoded as seldom as memory and disk allow
shots.py             where a video is cut
flow.py              flow between keyframes, and exposure without flicker
hint_propagation.py  hints on a frame ⇒ all keyframes of its shot
keyframes.py         a shot ⇒ its keyframes, without grain, dirt and flicker
color_sources.py     what colors keyframes: a model, or a finished film
frame_matching.py    which frame of a finished film shows what a frame shows
stills.py            finished frames ⇒ colors of keyframes in their shots, and in others of the same scene
shot_colorizer.py    a shot's keyframes ⇒ their colors, made consistent ⇒ chroma of all its frames
chroma_cache.py      the folder that keeps shots and their chroma
yuv.py               luma and chroma ⇒ planes of a frame
tracks.py            what comes along with the frames, and how it goes into a container: copied, converted, or named
track_writing.py     the same into the new file, in time with its frames
containers.py        what FFmpeg does not write into containers
writing.py           colored frames and what comes along ⇒ a video's file, or a folder
options.py           options of a video, and hints by frame
run.py               all of it, in order
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
