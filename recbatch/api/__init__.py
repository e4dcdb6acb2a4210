"""The Python API behind ``import recbatch``; the command line calls these functions and nothing else.

Heavy modules (torch, Ray, pyarrow) are imported by the function that needs them, never here.
"""

from recbatch.api.archives import Archive, QuarantinedImage, checks, open, pixel_check, verify
from recbatch.api.checkup import doctor
from recbatch.api.common import ModesConflict, make_settings
from recbatch.api.foresight import plan
from recbatch.api.jobs import compress, restore
from recbatch.api.maintenance import live_runs, vacuum, versions
from recbatch.api.mending import mending_commands
from recbatch.api.page import RunPage, keep_page, report, run_page
from recbatch.api.recompression import recompress
from recbatch.api.schedule import (
    add_schedule,
    remove_schedule,
    render_schedule,
    run_schedules,
    schedule_history,
    schedule_status,
    schedules,
    watch_schedules,
)
from recbatch.api.single import (
    StreamInfo,
    UnknownFormat,
    decode,
    decode_file,
    encode,
    encode_measured,
    file_format,
    image_bytes,
    read_image,
    stream_info,
)
from recbatch.api.zoo import ModelCheck, ModelInfo, model, model_names, verify_model

__all__ = [
    "Archive",
    "ModelCheck",
    "ModelInfo",
    "ModesConflict",
    "QuarantinedImage",
    "RunPage",
    "StreamInfo",
    "UnknownFormat",
    "add_schedule",
    "checks",
    "compress",
    "decode",
    "decode_file",
    "doctor",
    "encode",
    "encode_measured",
    "file_format",
    "image_bytes",
    "keep_page",
    "live_runs",
    "make_settings",
    "mending_commands",
    "model",
    "model_names",
    "open",
    "pixel_check",
    "plan",
    "read_image",
    "recompress",
    "remove_schedule",
    "render_schedule",
    "report",
    "restore",
    "run_page",
    "run_schedules",
    "schedule_history",
    "schedule_status",
    "schedules",
    "stream_info",
    "vacuum",
    "verify",
    "verify_model",
    "versions",
    "watch_schedules",
]
