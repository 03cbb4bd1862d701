"""Capy's REST API for Python, without Airflow: ``CapyClient``, ``AsyncCapyClient`` and what they speak."""

from airflow_provider_capy.api.client import AsyncCapyClient, CapyClient
from airflow_provider_capy.api.models import CreatedThread, StoppedThread, Thread, ThreadPage
from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.api.settings import ClientSettings

__all__ = [
    "AsyncCapyClient",
    "CapyClient",
    "ClientSettings",
    "CreatedThread",
    "RetryLimits",
    "StoppedThread",
    "Thread",
    "ThreadPage",
]
