"""A page on which photos get finished, and an API for programs, on this machine's own address.

settings.py   where it listens, who may use it, how much it takes on
predictor.py  what stands behind the app
local.py      the predictor of this process: models loaded once, a bounded queue
app.py        routes over a predictor, and a line for each failure
guard.py      host, origin, token, size and time of a request, before its body is read
metrics.py    measures for Prometheus
run.py        the app on a port, until it is told to stop
page/         the page: HTML, CSS and ES modules as they are
"""
