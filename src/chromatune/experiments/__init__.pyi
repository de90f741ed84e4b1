from .declaration import experiments as experiments
from .declaration import find as find
from .experiment import run_experiment as run_experiment
from .findings import write_findings as write_findings
