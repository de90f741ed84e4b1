from .colorizer import Colorizer as Colorizer
from .editor import Editor as Editor
from .errors import ChromaTuneError as ChromaTuneError
from .errors import DataError as DataError
from .errors import MissingExtraError as MissingExtraError
from .errors import ModelError as ModelError
from .errors import OptionsError as OptionsError
from .errors import PhotoError as PhotoError
from .hints import Hints as Hints
from .images import Photo as Photo
from .images import read_photo as read_photo
from .options import ColorizeOptions as ColorizeOptions
from .options import make_options as make_options
from .pipeline import load_pipeline as load_pipeline
from .recoloring import recolor as recolor
from .results import ColorizeResult as ColorizeResult
from .results import Request as Request

__version__: str
