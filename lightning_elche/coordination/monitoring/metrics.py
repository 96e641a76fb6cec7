"""The numbers that runs and registries tell a monitoring system, by name."""

from __future__ import annotations

from lightning_elche.coordination.monitoring.exposition import Metric

__all__ = ["METRICS"]

METRICS = (
    Metric("run_info", "gauge", ("run", "fingerprint", "strategy"), "The run; always 1."),
    Metric("run_state", "gauge", ("state",), "1 for the state that the run is in."),
    Metric("steps_total", "counter", ("rank",), "Batches that were trained."),
    Metric("samples_total", "counter", ("rank",), "Samples in these batches."),
    Metric("throughput_samples_per_second", "gauge", ("rank",), "Of the latest window."),
    Metric("share_ratio", "gauge", ("rank",), "Part of the total throughput."),
    Metric("anchor_batches", "gauge", (), "Steps of the slowest rank between two averages."),
    Metric("averages_total", "counter", (), "Averaging events."),
    Metric("average_period_seconds", "gauge", (), "From the average before to the latest one."),
    Metric(
        "average_seconds_total",
        "counter",
        ("phase", "rank"),
        "Time at averaging events, waiting for peers or exchanging.",
    ),
    Metric(
        "idle_seconds_total", "counter", ("rank", "cause"), "Time in which a rank did not train."
    ),
    Metric("overhead_ratio", "gauge", (), "Longest exchange over the longest window."),
    Metric("duty_ratio", "gauge", ("rank",), "Part of its time that a rank does not throttle."),
    Metric("batches_skipped_total", "counter", ("rank", "reason"), "Batches that were not learnt."),
    Metric("cpu_utilization_ratio", "gauge", (), "Of the machine of rank 0."),
    Metric("gpu_utilization_ratio", "gauge", ("gpu",), "Of the machine of rank 0."),
    Metric("gpu_memory_used_bytes", "gauge", ("gpu",), "Of the machine of rank 0."),
    Metric("memory_available_bytes", "gauge", (), "Memory that rank 0 may still take."),
    Metric("disk_free_bytes", "gauge", ("mount",), "Where checkpoints are written."),
    Metric("disk_full_seconds", "gauge", (), "Until that is full, if the trend goes on."),
    Metric("in_target_range", "gauge", ("resource",), "1 if it is used as much as it should be."),
    Metric("governor_action", "gauge", ("action",), "1 for what the governor did last."),
    Metric("breaker_state", "gauge", ("key",), "0 closed, 1 half-open, 2 open."),
    Metric("breaker_opens_total", "counter", ("key",), "How often it has opened."),
    Metric("admissions_total", "counter", ("code",), "Answers to requests to start."),
    Metric("leases", "gauge", ("kind",), "What has started and not ended."),
    Metric("transfer_bytes_total", "counter", ("priority",), "Bytes that were uploaded."),
    Metric("eta_seconds", "gauge", (), "Until the end of the run, the median."),
    Metric("checkpoint_seconds", "gauge", (), "What a checkpoint takes, the median."),
    Metric("last_average_timestamp_seconds", "gauge", (), "When ranks last met, since 1970."),
    Metric("last_checkpoint_timestamp_seconds", "gauge", (), "When the last one was saved."),
    Metric("stop_requested", "gauge", ("cause",), "1 for the cause for which the run ends."),
)
