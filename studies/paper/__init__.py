"""Questions answered by measurement: training and evaluation settings, and a decision rule, declared before the run.

    python -m studies.paper list
    python -m studies.paper run NAME --data [ROLE=]SOURCE

declared/       one TOML file an experiment: question, arms, tests, claims with their rules
declaration.py  what such a file may say, checked when it is read
photos.py       a role's photos in two halves: to train on, to test on; their licenses
baselines.py    colorizers that are no diffusion model: one mean color, a plain regression U-Net
ambiguity.py    many seeds and words on one photo: spread, best of k, how far text moves color, and where
runs.py         an experiment that is being run, and its runs: models fine-tuned and baselines fitted, each once
measurements.py every arm in every test: scores of all seeds and photos
verdicts.py     scores ⇒ intervals over photos and seeds ⇒ holds, does not hold, undecided
findings.py     question, verdicts, pictures, plot and numbers, as Markdown and as one HTML file
experiment.py   one experiment, from its declaration to its findings
__main__.py     the command
"""
