from .loop import train as train
from .outcome import model_folder as model_folder
from .outcome import write_outcome as write_outcome
from .settings import TrainSettings as TrainSettings
from .settings import preset_of as preset_of
from .settings import presets as presets
from .settings import resolve_settings as resolve_settings
from .widening import open_trainable as open_trainable
