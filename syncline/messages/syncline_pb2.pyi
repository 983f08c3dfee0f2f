from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Clock(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOCK_UNKNOWN: _ClassVar[Clock]
    CLOCK_MONOTONIC_RAW: _ClassVar[Clock]
    CLOCK_MONOTONIC: _ClassVar[Clock]
    CLOCK_BOOTTIME: _ClassVar[Clock]
    CLOCK_REALTIME: _ClassVar[Clock]
    CLOCK_TAI: _ClassVar[Clock]
    CLOCK_DEVICE: _ClassVar[Clock]
    CLOCK_UTC: _ClassVar[Clock]

class TimeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIME_STATE_COLD: _ClassVar[TimeState]
    TIME_STATE_SYNCED: _ClassVar[TimeState]
    TIME_STATE_HOLDOVER: _ClassVar[TimeState]
    TIME_STATE_SUSPECT: _ClassVar[TimeState]
    TIME_STATE_INTERFERENCE: _ClassVar[TimeState]

class Shutter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHUTTER_GLOBAL: _ClassVar[Shutter]
    SHUTTER_ROLLING: _ClassVar[Shutter]
    SHUTTER_GLOBAL_RESET: _ClassVar[Shutter]

class ScanDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCAN_TOP_BOTTOM: _ClassVar[ScanDirection]
    SCAN_BOTTOM_TOP: _ClassVar[ScanDirection]
    SCAN_LEFT_RIGHT: _ClassVar[ScanDirection]
    SCAN_RIGHT_LEFT: _ClassVar[ScanDirection]

class Anchor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANCHOR_UNKNOWN: _ClassVar[Anchor]
    ANCHOR_TRIGGER: _ClassVar[Anchor]
    ANCHOR_READOUT: _ClassVar[Anchor]

class ClockEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOCK_EVENT_UNKNOWN: _ClassVar[ClockEventKind]
    CLOCK_EVENT_ADJUST: _ClassVar[ClockEventKind]
    CLOCK_EVENT_STEP: _ClassVar[ClockEventKind]
    CLOCK_EVENT_UNKNOWN_STEP: _ClassVar[ClockEventKind]
    CLOCK_EVENT_SOURCE_VERDICT: _ClassVar[ClockEventKind]
    CLOCK_EVENT_STATE: _ClassVar[ClockEventKind]
    CLOCK_EVENT_POLICY: _ClassVar[ClockEventKind]
    CLOCK_EVENT_SUSPEND: _ClassVar[ClockEventKind]
CLOCK_UNKNOWN: Clock
CLOCK_MONOTONIC_RAW: Clock
CLOCK_MONOTONIC: Clock
CLOCK_BOOTTIME: Clock
CLOCK_REALTIME: Clock
CLOCK_TAI: Clock
CLOCK_DEVICE: Clock
CLOCK_UTC: Clock
TIME_STATE_COLD: TimeState
TIME_STATE_SYNCED: TimeState
TIME_STATE_HOLDOVER: TimeState
TIME_STATE_SUSPECT: TimeState
TIME_STATE_INTERFERENCE: TimeState
SHUTTER_GLOBAL: Shutter
SHUTTER_ROLLING: Shutter
SHUTTER_GLOBAL_RESET: Shutter
SCAN_TOP_BOTTOM: ScanDirection
SCAN_BOTTOM_TOP: ScanDirection
SCAN_LEFT_RIGHT: ScanDirection
SCAN_RIGHT_LEFT: ScanDirection
ANCHOR_UNKNOWN: Anchor
ANCHOR_TRIGGER: Anchor
ANCHOR_READOUT: Anchor
CLOCK_EVENT_UNKNOWN: ClockEventKind
CLOCK_EVENT_ADJUST: ClockEventKind
CLOCK_EVENT_STEP: ClockEventKind
CLOCK_EVENT_UNKNOWN_STEP: ClockEventKind
CLOCK_EVENT_SOURCE_VERDICT: ClockEventKind
CLOCK_EVENT_STATE: ClockEventKind
CLOCK_EVENT_POLICY: ClockEventKind
CLOCK_EVENT_SUSPEND: ClockEventKind

class MappingSegment(_message.Message):
    __slots__ = ("id", "revision", "boot_id", "raw0_ns", "utc0_ns", "rate", "var_offset_ns2", "cov_offset_rate", "var_rate", "wander_ns2_per_s", "hard_bound_ns", "drift_limit_ppb", "state", "sources", "policy")
    ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW0_NS_FIELD_NUMBER: _ClassVar[int]
    UTC0_NS_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    VAR_OFFSET_NS2_FIELD_NUMBER: _ClassVar[int]
    COV_OFFSET_RATE_FIELD_NUMBER: _ClassVar[int]
    VAR_RATE_FIELD_NUMBER: _ClassVar[int]
    WANDER_NS2_PER_S_FIELD_NUMBER: _ClassVar[int]
    HARD_BOUND_NS_FIELD_NUMBER: _ClassVar[int]
    DRIFT_LIMIT_PPB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    id: int
    revision: int
    boot_id: str
    raw0_ns: int
    utc0_ns: int
    rate: float
    var_offset_ns2: float
    cov_offset_rate: float
    var_rate: float
    wander_ns2_per_s: float
    hard_bound_ns: int
    drift_limit_ppb: float
    state: TimeState
    sources: _containers.RepeatedScalarFieldContainer[str]
    policy: str
    def __init__(self, id: _Optional[int] = ..., revision: _Optional[int] = ..., boot_id: _Optional[str] = ..., raw0_ns: _Optional[int] = ..., utc0_ns: _Optional[int] = ..., rate: _Optional[float] = ..., var_offset_ns2: _Optional[float] = ..., cov_offset_rate: _Optional[float] = ..., var_rate: _Optional[float] = ..., wander_ns2_per_s: _Optional[float] = ..., hard_bound_ns: _Optional[int] = ..., drift_limit_ppb: _Optional[float] = ..., state: _Optional[_Union[TimeState, str]] = ..., sources: _Optional[_Iterable[str]] = ..., policy: _Optional[str] = ...) -> None: ...

class ClockEvent(_message.Message):
    __slots__ = ("boot_id", "raw_ns", "kind", "source", "size_ns", "sigma_ns", "detail", "state")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_NS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_NS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    raw_ns: int
    kind: ClockEventKind
    source: str
    size_ns: int
    sigma_ns: float
    detail: str
    state: TimeState
    def __init__(self, boot_id: _Optional[str] = ..., raw_ns: _Optional[int] = ..., kind: _Optional[_Union[ClockEventKind, str]] = ..., source: _Optional[str] = ..., size_ns: _Optional[int] = ..., sigma_ns: _Optional[float] = ..., detail: _Optional[str] = ..., state: _Optional[_Union[TimeState, str]] = ...) -> None: ...

class SourceStatus(_message.Message):
    __slots__ = ("raw_ns", "name", "kind", "verdict", "offset_ns", "sigma_ns", "delay_ns", "samples", "rejected", "last_raw_ns", "detail")
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_NS_FIELD_NUMBER: _ClassVar[int]
    DELAY_NS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LAST_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    raw_ns: int
    name: str
    kind: str
    verdict: str
    offset_ns: int
    sigma_ns: float
    delay_ns: int
    samples: int
    rejected: int
    last_raw_ns: int
    detail: str
    def __init__(self, raw_ns: _Optional[int] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., verdict: _Optional[str] = ..., offset_ns: _Optional[int] = ..., sigma_ns: _Optional[float] = ..., delay_ns: _Optional[int] = ..., samples: _Optional[int] = ..., rejected: _Optional[int] = ..., last_raw_ns: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class TimeMeasurement(_message.Message):
    __slots__ = ("boot_id", "source", "kind", "raw_ns", "utc_ns", "delay_ns", "uncertainty_ns", "root_bound_ns", "arrival_raw_ns", "flags", "inflation", "stratum")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    UTC_NS_FIELD_NUMBER: _ClassVar[int]
    DELAY_NS_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_NS_FIELD_NUMBER: _ClassVar[int]
    ROOT_BOUND_NS_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    INFLATION_FIELD_NUMBER: _ClassVar[int]
    STRATUM_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    source: str
    kind: int
    raw_ns: int
    utc_ns: int
    delay_ns: int
    uncertainty_ns: int
    root_bound_ns: int
    arrival_raw_ns: int
    flags: int
    inflation: float
    stratum: int
    def __init__(self, boot_id: _Optional[str] = ..., source: _Optional[str] = ..., kind: _Optional[int] = ..., raw_ns: _Optional[int] = ..., utc_ns: _Optional[int] = ..., delay_ns: _Optional[int] = ..., uncertainty_ns: _Optional[int] = ..., root_bound_ns: _Optional[int] = ..., arrival_raw_ns: _Optional[int] = ..., flags: _Optional[int] = ..., inflation: _Optional[float] = ..., stratum: _Optional[int] = ...) -> None: ...

class SensorMode(_message.Message):
    __slots__ = ("width", "height", "crop_x_px", "crop_y_px", "crop_w_px", "crop_h_px", "binning_x", "binning_y", "line_time_ns", "frame_length_lines", "shutter", "direction")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CROP_X_PX_FIELD_NUMBER: _ClassVar[int]
    CROP_Y_PX_FIELD_NUMBER: _ClassVar[int]
    CROP_W_PX_FIELD_NUMBER: _ClassVar[int]
    CROP_H_PX_FIELD_NUMBER: _ClassVar[int]
    BINNING_X_FIELD_NUMBER: _ClassVar[int]
    BINNING_Y_FIELD_NUMBER: _ClassVar[int]
    LINE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FRAME_LENGTH_LINES_FIELD_NUMBER: _ClassVar[int]
    SHUTTER_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    crop_x_px: int
    crop_y_px: int
    crop_w_px: int
    crop_h_px: int
    binning_x: int
    binning_y: int
    line_time_ns: float
    frame_length_lines: int
    shutter: Shutter
    direction: ScanDirection
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., crop_x_px: _Optional[int] = ..., crop_y_px: _Optional[int] = ..., crop_w_px: _Optional[int] = ..., crop_h_px: _Optional[int] = ..., binning_x: _Optional[int] = ..., binning_y: _Optional[int] = ..., line_time_ns: _Optional[float] = ..., frame_length_lines: _Optional[int] = ..., shutter: _Optional[_Union[Shutter, str]] = ..., direction: _Optional[_Union[ScanDirection, str]] = ...) -> None: ...

class FrameTiming(_message.Message):
    __slots__ = ("camera", "boot_id", "index", "sequence", "soe_raw_ns", "mid_raw_ns", "eof_raw_ns", "arrival_raw_ns", "sigma_ns", "bias_low_ns", "bias_high_ns", "anchor", "quality", "exposure_ns", "gain", "mode", "trigger_id", "segment_id", "device_ticks")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SOE_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    MID_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    EOF_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_NS_FIELD_NUMBER: _ClassVar[int]
    BIAS_LOW_NS_FIELD_NUMBER: _ClassVar[int]
    BIAS_HIGH_NS_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_NS_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TICKS_FIELD_NUMBER: _ClassVar[int]
    camera: str
    boot_id: str
    index: int
    sequence: int
    soe_raw_ns: int
    mid_raw_ns: int
    eof_raw_ns: int
    arrival_raw_ns: int
    sigma_ns: float
    bias_low_ns: int
    bias_high_ns: int
    anchor: Anchor
    quality: int
    exposure_ns: int
    gain: float
    mode: SensorMode
    trigger_id: int
    segment_id: int
    device_ticks: int
    def __init__(self, camera: _Optional[str] = ..., boot_id: _Optional[str] = ..., index: _Optional[int] = ..., sequence: _Optional[int] = ..., soe_raw_ns: _Optional[int] = ..., mid_raw_ns: _Optional[int] = ..., eof_raw_ns: _Optional[int] = ..., arrival_raw_ns: _Optional[int] = ..., sigma_ns: _Optional[float] = ..., bias_low_ns: _Optional[int] = ..., bias_high_ns: _Optional[int] = ..., anchor: _Optional[_Union[Anchor, str]] = ..., quality: _Optional[int] = ..., exposure_ns: _Optional[int] = ..., gain: _Optional[float] = ..., mode: _Optional[_Union[SensorMode, _Mapping]] = ..., trigger_id: _Optional[int] = ..., segment_id: _Optional[int] = ..., device_ticks: _Optional[int] = ...) -> None: ...

class Detections(_message.Message):
    __slots__ = ("camera", "boot_id", "frame_index", "mid_raw_ns", "segment_id", "model_sha256", "image_width", "image_height", "x0_px", "y0_px", "x1_px", "y1_px", "score", "class_id", "row_offset_ns", "time_sigma_ns", "valid", "invalid_reason", "shadow")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    MID_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    IMAGE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    X0_PX_FIELD_NUMBER: _ClassVar[int]
    Y0_PX_FIELD_NUMBER: _ClassVar[int]
    X1_PX_FIELD_NUMBER: _ClassVar[int]
    Y1_PX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGMA_NS_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    INVALID_REASON_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    camera: str
    boot_id: str
    frame_index: int
    mid_raw_ns: int
    segment_id: int
    model_sha256: str
    image_width: int
    image_height: int
    x0_px: _containers.RepeatedScalarFieldContainer[float]
    y0_px: _containers.RepeatedScalarFieldContainer[float]
    x1_px: _containers.RepeatedScalarFieldContainer[float]
    y1_px: _containers.RepeatedScalarFieldContainer[float]
    score: _containers.RepeatedScalarFieldContainer[float]
    class_id: _containers.RepeatedScalarFieldContainer[int]
    row_offset_ns: _containers.RepeatedScalarFieldContainer[int]
    time_sigma_ns: float
    valid: bool
    invalid_reason: str
    shadow: bool
    def __init__(self, camera: _Optional[str] = ..., boot_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., mid_raw_ns: _Optional[int] = ..., segment_id: _Optional[int] = ..., model_sha256: _Optional[str] = ..., image_width: _Optional[int] = ..., image_height: _Optional[int] = ..., x0_px: _Optional[_Iterable[float]] = ..., y0_px: _Optional[_Iterable[float]] = ..., x1_px: _Optional[_Iterable[float]] = ..., y1_px: _Optional[_Iterable[float]] = ..., score: _Optional[_Iterable[float]] = ..., class_id: _Optional[_Iterable[int]] = ..., row_offset_ns: _Optional[_Iterable[int]] = ..., time_sigma_ns: _Optional[float] = ..., valid: _Optional[bool] = ..., invalid_reason: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class Segmentation(_message.Message):
    __slots__ = ("camera", "boot_id", "frame_index", "mid_raw_ns", "segment_id", "model_sha256", "width", "height", "labels_zstd", "valid", "invalid_reason", "shadow")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    MID_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LABELS_ZSTD_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    INVALID_REASON_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    camera: str
    boot_id: str
    frame_index: int
    mid_raw_ns: int
    segment_id: int
    model_sha256: str
    width: int
    height: int
    labels_zstd: bytes
    valid: bool
    invalid_reason: str
    shadow: bool
    def __init__(self, camera: _Optional[str] = ..., boot_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., mid_raw_ns: _Optional[int] = ..., segment_id: _Optional[int] = ..., model_sha256: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., labels_zstd: _Optional[bytes] = ..., valid: _Optional[bool] = ..., invalid_reason: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("camera", "boot_id", "frame_index", "mid_raw_ns", "segment_id", "model_sha256", "class_id", "score", "valid", "invalid_reason", "shadow")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    MID_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    INVALID_REASON_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    camera: str
    boot_id: str
    frame_index: int
    mid_raw_ns: int
    segment_id: int
    model_sha256: str
    class_id: _containers.RepeatedScalarFieldContainer[int]
    score: _containers.RepeatedScalarFieldContainer[float]
    valid: bool
    invalid_reason: str
    shadow: bool
    def __init__(self, camera: _Optional[str] = ..., boot_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., mid_raw_ns: _Optional[int] = ..., segment_id: _Optional[int] = ..., model_sha256: _Optional[str] = ..., class_id: _Optional[_Iterable[int]] = ..., score: _Optional[_Iterable[float]] = ..., valid: _Optional[bool] = ..., invalid_reason: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class Disagreement(_message.Message):
    __slots__ = ("camera", "boot_id", "frame_index", "mid_raw_ns", "model_sha256", "shadow_sha256", "worth", "score", "class_area_l1", "unmatched", "flicker", "choice")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    MID_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SHA256_FIELD_NUMBER: _ClassVar[int]
    WORTH_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLASS_AREA_L1_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    FLICKER_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    camera: str
    boot_id: str
    frame_index: int
    mid_raw_ns: int
    model_sha256: str
    shadow_sha256: str
    worth: float
    score: float
    class_area_l1: float
    unmatched: int
    flicker: float
    choice: str
    def __init__(self, camera: _Optional[str] = ..., boot_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., mid_raw_ns: _Optional[int] = ..., model_sha256: _Optional[str] = ..., shadow_sha256: _Optional[str] = ..., worth: _Optional[float] = ..., score: _Optional[float] = ..., class_area_l1: _Optional[float] = ..., unmatched: _Optional[int] = ..., flicker: _Optional[float] = ..., choice: _Optional[str] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("camera", "boot_id", "frame_index", "mid_raw_ns", "model_sha256", "choice", "share", "worth", "before_ns", "after_ns")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    MID_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    WORTH_FIELD_NUMBER: _ClassVar[int]
    BEFORE_NS_FIELD_NUMBER: _ClassVar[int]
    AFTER_NS_FIELD_NUMBER: _ClassVar[int]
    camera: str
    boot_id: str
    frame_index: int
    mid_raw_ns: int
    model_sha256: str
    choice: str
    share: float
    worth: float
    before_ns: int
    after_ns: int
    def __init__(self, camera: _Optional[str] = ..., boot_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., mid_raw_ns: _Optional[int] = ..., model_sha256: _Optional[str] = ..., choice: _Optional[str] = ..., share: _Optional[float] = ..., worth: _Optional[float] = ..., before_ns: _Optional[int] = ..., after_ns: _Optional[int] = ...) -> None: ...

class Drop(_message.Message):
    __slots__ = ("camera", "frame_index", "raw_ns", "stage", "reason", "count")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    camera: str
    frame_index: int
    raw_ns: int
    stage: str
    reason: str
    count: int
    def __init__(self, camera: _Optional[str] = ..., frame_index: _Optional[int] = ..., raw_ns: _Optional[int] = ..., stage: _Optional[str] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("name", "edges_ns", "counts", "sum_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EDGES_NS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    edges_ns: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum_ns: int
    def __init__(self, name: _Optional[str] = ..., edges_ns: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., sum_ns: _Optional[int] = ...) -> None: ...

class ModelHealth(_message.Message):
    __slots__ = ("slot", "shadow_of", "state", "detail", "name", "version", "sha256", "ep_requested", "ep_actual", "ep_node_share", "frames_captured", "frames_processed", "frames_invalid", "dropped")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_OF_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    EP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EP_ACTUAL_FIELD_NUMBER: _ClassVar[int]
    EP_NODE_SHARE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_CAPTURED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_INVALID_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    slot: str
    shadow_of: str
    state: str
    detail: str
    name: str
    version: str
    sha256: str
    ep_requested: str
    ep_actual: str
    ep_node_share: float
    frames_captured: int
    frames_processed: int
    frames_invalid: int
    dropped: _containers.ScalarMap[str, int]
    def __init__(self, slot: _Optional[str] = ..., shadow_of: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ..., ep_requested: _Optional[str] = ..., ep_actual: _Optional[str] = ..., ep_node_share: _Optional[float] = ..., frames_captured: _Optional[int] = ..., frames_processed: _Optional[int] = ..., frames_invalid: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CameraHealth(_message.Message):
    __slots__ = ("camera", "state", "detail", "frames", "lost", "refused")
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    camera: str
    state: str
    detail: str
    frames: int
    lost: int
    refused: int
    def __init__(self, camera: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., frames: _Optional[int] = ..., lost: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("boot_id", "raw_ns", "state", "detail", "model_name", "model_version", "model_sha256", "ep_requested", "ep_actual", "ep_node_share", "frames_captured", "frames_processed", "dropped", "latency", "rss_bytes", "temperature_c", "spool_bytes", "time_state", "time_bound_ns", "counters", "models", "cameras", "started_raw_ns")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    EP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EP_ACTUAL_FIELD_NUMBER: _ClassVar[int]
    EP_NODE_SHARE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_CAPTURED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_STATE_FIELD_NUMBER: _ClassVar[int]
    TIME_BOUND_NS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    STARTED_RAW_NS_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    raw_ns: int
    state: str
    detail: str
    model_name: str
    model_version: str
    model_sha256: str
    ep_requested: str
    ep_actual: str
    ep_node_share: float
    frames_captured: int
    frames_processed: int
    dropped: _containers.ScalarMap[str, int]
    latency: _containers.RepeatedCompositeFieldContainer[Histogram]
    rss_bytes: int
    temperature_c: float
    spool_bytes: int
    time_state: TimeState
    time_bound_ns: int
    counters: _containers.ScalarMap[str, int]
    models: _containers.RepeatedCompositeFieldContainer[ModelHealth]
    cameras: _containers.RepeatedCompositeFieldContainer[CameraHealth]
    started_raw_ns: int
    def __init__(self, boot_id: _Optional[str] = ..., raw_ns: _Optional[int] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., model_sha256: _Optional[str] = ..., ep_requested: _Optional[str] = ..., ep_actual: _Optional[str] = ..., ep_node_share: _Optional[float] = ..., frames_captured: _Optional[int] = ..., frames_processed: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., latency: _Optional[_Iterable[_Union[Histogram, _Mapping]]] = ..., rss_bytes: _Optional[int] = ..., temperature_c: _Optional[float] = ..., spool_bytes: _Optional[int] = ..., time_state: _Optional[_Union[TimeState, str]] = ..., time_bound_ns: _Optional[int] = ..., counters: _Optional[_Mapping[str, int]] = ..., models: _Optional[_Iterable[_Union[ModelHealth, _Mapping]]] = ..., cameras: _Optional[_Iterable[_Union[CameraHealth, _Mapping]]] = ..., started_raw_ns: _Optional[int] = ...) -> None: ...

class ImuSample(_message.Message):
    __slots__ = ("sensor", "boot_id", "raw_ns", "sigma_ns", "accel_x_mps2", "accel_y_mps2", "accel_z_mps2", "gyro_x_radps", "gyro_y_radps", "gyro_z_radps")
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_NS_FIELD_NUMBER: _ClassVar[int]
    ACCEL_X_MPS2_FIELD_NUMBER: _ClassVar[int]
    ACCEL_Y_MPS2_FIELD_NUMBER: _ClassVar[int]
    ACCEL_Z_MPS2_FIELD_NUMBER: _ClassVar[int]
    GYRO_X_RADPS_FIELD_NUMBER: _ClassVar[int]
    GYRO_Y_RADPS_FIELD_NUMBER: _ClassVar[int]
    GYRO_Z_RADPS_FIELD_NUMBER: _ClassVar[int]
    sensor: str
    boot_id: str
    raw_ns: int
    sigma_ns: float
    accel_x_mps2: float
    accel_y_mps2: float
    accel_z_mps2: float
    gyro_x_radps: float
    gyro_y_radps: float
    gyro_z_radps: float
    def __init__(self, sensor: _Optional[str] = ..., boot_id: _Optional[str] = ..., raw_ns: _Optional[int] = ..., sigma_ns: _Optional[float] = ..., accel_x_mps2: _Optional[float] = ..., accel_y_mps2: _Optional[float] = ..., accel_z_mps2: _Optional[float] = ..., gyro_x_radps: _Optional[float] = ..., gyro_y_radps: _Optional[float] = ..., gyro_z_radps: _Optional[float] = ...) -> None: ...

class GnssFix(_message.Message):
    __slots__ = ("sensor", "boot_id", "raw_ns", "utc_ns", "latitude_deg", "longitude_deg", "altitude_m", "speed_mps", "heading_deg", "mode", "satellites", "time_sigma_ns", "leap_valid", "cn0_dbhz", "jamming")
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    UTC_NS_FIELD_NUMBER: _ClassVar[int]
    LATITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    ALTITUDE_M_FIELD_NUMBER: _ClassVar[int]
    SPEED_MPS_FIELD_NUMBER: _ClassVar[int]
    HEADING_DEG_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SATELLITES_FIELD_NUMBER: _ClassVar[int]
    TIME_SIGMA_NS_FIELD_NUMBER: _ClassVar[int]
    LEAP_VALID_FIELD_NUMBER: _ClassVar[int]
    CN0_DBHZ_FIELD_NUMBER: _ClassVar[int]
    JAMMING_FIELD_NUMBER: _ClassVar[int]
    sensor: str
    boot_id: str
    raw_ns: int
    utc_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    speed_mps: float
    heading_deg: float
    mode: int
    satellites: int
    time_sigma_ns: float
    leap_valid: bool
    cn0_dbhz: float
    jamming: float
    def __init__(self, sensor: _Optional[str] = ..., boot_id: _Optional[str] = ..., raw_ns: _Optional[int] = ..., utc_ns: _Optional[int] = ..., latitude_deg: _Optional[float] = ..., longitude_deg: _Optional[float] = ..., altitude_m: _Optional[float] = ..., speed_mps: _Optional[float] = ..., heading_deg: _Optional[float] = ..., mode: _Optional[int] = ..., satellites: _Optional[int] = ..., time_sigma_ns: _Optional[float] = ..., leap_valid: _Optional[bool] = ..., cn0_dbhz: _Optional[float] = ..., jamming: _Optional[float] = ...) -> None: ...

class CanFrame(_message.Message):
    __slots__ = ("bus", "boot_id", "raw_ns", "can_id", "data", "extended")
    BUS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    CAN_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    bus: str
    boot_id: str
    raw_ns: int
    can_id: int
    data: bytes
    extended: bool
    def __init__(self, bus: _Optional[str] = ..., boot_id: _Optional[str] = ..., raw_ns: _Optional[int] = ..., can_id: _Optional[int] = ..., data: _Optional[bytes] = ..., extended: _Optional[bool] = ...) -> None: ...

class ModelEvent(_message.Message):
    __slots__ = ("boot_id", "raw_ns", "action", "name", "version", "sha256", "reason", "slot")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RAW_NS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    raw_ns: int
    action: str
    name: str
    version: str
    sha256: str
    reason: str
    slot: str
    def __init__(self, boot_id: _Optional[str] = ..., raw_ns: _Optional[int] = ..., action: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ..., reason: _Optional[str] = ..., slot: _Optional[str] = ...) -> None: ...
