"""Measuring colorizers: one protocol, one row a method, every choice named.

settings.py     what is measured and how: frozen, validated
protocol.py     which photos are measured, which are left out and why, and their centre squares
metrics.py      metrics on pairs of 8-bit photos, pure functions
signatures.py   what goes wrong: colour bleeding, skin tone, and where a face is
perceptual.py   networks given by path, for LPIPS and FID
frechet.py      Fréchet distance, and the features on disk that it is taken over
scoring.py      one photo's scores under all of these
rows.py         methods and their rows; scores on disk, so that an interrupted run goes on
files.py        results that another tool wrote
running.py      photos through every method, scored while the model works
measuring.py    one evaluation, from its settings to its report
bootstrap.py    intervals on means and on differences of means
summary.py      scores ⇒ the table, as data and as Markdown
table.py        the writing of Markdown tables
cost.py         parameters, U-Net evaluations, FLOPs, seconds, memory
pictures.py     worst, median and best photos of each row
plots.py        the report's plots
report.py       all of it as one HTML file
"""
