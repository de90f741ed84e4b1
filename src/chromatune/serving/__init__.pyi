from .app import create_app as create_app
from .local import LocalPredictor as LocalPredictor
from .predictor import Predictor as Predictor
from .ray_predictor import RayPredictor as RayPredictor
from .run import run_app as run_app
from .settings import TOKEN_VARIABLE as TOKEN_VARIABLE
from .settings import ServeSettings as ServeSettings
from .settings import make_serve_settings as make_serve_settings
