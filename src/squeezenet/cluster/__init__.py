"""Work on several machines with Ray; only this package imports Ray."""

from .bulk import BulkResult, predict_to_parquet
from .tasks import ClusterTasks

__all__ = ["BulkResult", "ClusterTasks", "predict_to_parquet"]
