"""Work on more than one machine, by Ray, which nothing else imports."""

from .bulk import BulkResult, predict_to_parquet
from .tasks import ClusterTasks

__all__ = ["BulkResult", "ClusterTasks", "predict_to_parquet"]
