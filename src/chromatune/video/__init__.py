"""Films: gray frames in, colored frames out, without flicker.

frames.py   what a film and a frame are
reading.py  a film's file ⇒ frames and sound
folders.py  a folder of numbered frames as a film
shots.py    where a film is cut
motion.py   flow between two pictures, and how far it is believed
keys.py     key frames, steadied along the motion
chroma.py   chroma of keys made one, and carried to all frames
hinting.py  hints on a frame, carried through its shot
shading.py  a shot through the model
cache.py    chroma of shots on the disk
planes.py   luma and chroma ⇒ planes of a frame
writing.py  frames and sound ⇒ a film's file
targets.py  a film's file or a folder, as places for frames
wishes.py   what is wanted of a film
run.py      all of it, in order
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
