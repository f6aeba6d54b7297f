"""ionmd: the open acquisition daemon of an intraoperative neuromonitoring cart."""

__version__ = "0.1.0"
