"""Work on more than one machine, by Ray; nothing else imports Ray, and nothing here schedules work by itself.

Use this when one machine is too slow: `predict_to_parquet` for images, `ClusterTasks` for functions that take long.
"""

from .bulk import BulkResult, predict_to_parquet
from .tasks import ClusterTasks

__all__ = ["BulkResult", "ClusterTasks", "predict_to_parquet"]
