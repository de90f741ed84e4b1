"""A page on which photos get finished, and an API for programs, on this machine's own address.

settings.py        where it listens, who may use it, how much it takes on
predictor.py       what stands behind the app
local.py           the predictor of this process: models loaded once
local_kept.py      a photo that is kept for changes
bounded_pool.py    threads with a bounded queue
shared_pass.py     photos of several threads in one pass of the model
ray_predictor.py   the predictor of a cluster
ray_replicas.py    its replicas, as they are deployed and asked
ray_replica.py     what runs in each of them
gathered_pass.py   a model pass for many callers, in a replica
remote_backend.py     a replica's model pass, for photos that are kept here
ray_app.py         the app as a deployment of its own
app.py             routes over a predictor
session_routes.py  routes of photos that are kept
batches.py         many photos that are colorized while nobody waits
batch_routes.py    their routes
answers.py         results and failures as HTTP answers
shelf.py           what clients come back for, bounded in number and age
guard.py           host, origin, token, size and time of a request, before its body is read
metrics.py         measures for Prometheus
run.py             the app on a port, until it is told to stop
page/              the page: HTML, CSS and ES modules as they are
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
