"""Work on more than one machine, by Ray; nothing else imports Ray, and nothing here schedules work by itself.

`predict_to_parquet` classifies images, `ClusterTasks` runs any function.
"""

from .bulk import BulkResult, predict_to_parquet
from .tasks import ClusterTasks

__all__ = ["BulkResult", "ClusterTasks", "predict_to_parquet"]
