"""Films: grey frames in, coloured frames out, without flicker.

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

from chromatune.film.frames import Film, FilmInfo, Frame, grey_of
from chromatune.film.reading import open_film
from chromatune.film.run import FilmResult, colorize_film, shots_of
from chromatune.film.shots import Shot, find_shots, read_starts, thumbnail, write_starts
from chromatune.film.wishes import FilmWishes, layers_by_frame, parse_frame_point

__all__ = [
    "Film",
    "FilmInfo",
    "FilmResult",
    "FilmWishes",
    "Frame",
    "Shot",
    "colorize_film",
    "find_shots",
    "grey_of",
    "layers_by_frame",
    "open_film",
    "parse_frame_point",
    "read_starts",
    "shots_of",
    "thumbnail",
    "write_starts",
]
