"""Settings of the estimator: one set of defaults for every scene, each with its meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """Defaults hold for a vehicle's crystal, cellular, Wi-Fi and wired servers, and GNSS.

    Attributes:
        window_rows: Rows kept exactly; older ones live on in the prior.
        knots: Knots of the oscillator in the window.
        absorb_knots: Knots over the rows that leave the window together.
        sweeps: Least EP sweeps per joint solve.
        sweeps_most: Most of them, while edges still move.
        solve_interval: Most measurements of a source between two joint solves.
        solve_every_s: Longest time between two joint solves while measurements come, s.
        solve_share: A joint solve comes at least when a line has grown by one part in so many.
        solve_pause_s: Mean time between joint solves of a full window of several servers, s.
        surprise: Sigmas by which one measurement may move the posterior without a joint solve.
        damp: Damping of the EP sites.
        wander_start: First guess of random-walk FM, 1/sqrt(s): high, so that no oscillator is
            taken for a lying source.
        wander_typical: Where the wander settles while the data say nothing.
        wander_min: Lower limit of the adapted wander.
        wander_max: Upper limit of the adapted wander.
        wander_weight: Increments that the typical wander is worth.
        wander_boost: Over-relaxation of the EM step.
        white_fm: White FM, sqrt(s).
        rate_sigma: One sigma of the oscillator's rate before anything is known.
        asymmetry: One sigma of unseen asymmetry as a share of the shortest round trip.
        min_one_way: Least share of the shortest round trip that each way takes (hard bound).
        delay_weight: Replies that the prior of the delay scales is worth.
        delay_memory: Replies over which the delay scales are remembered.
        path_wander: Random walk of the shortest delay, share of the round trip per sqrt(1000 s).
        stamp_ns: Least one-sigma noise of local stamps.
        drift_limit_ppb: Oscillator limit: how far the rate may leave its estimate (hard bound).
        proof_drift_ppb: The same while sources are heard, for carrying proofs forward.
        thermal_rate: Rate change by temperature, 1/s, that the statistical bound allows for.
        thermal_limit: The most of it, reached when the oscillator was seen to wander.
        thermal_s: For how long.
        ramp_rate: Steepest temperature ramp, 1/s, that may hide behind a queue after a gap.
        gnss_sigma_ns: Noise of one GNSS sample that states none.
        gnss_bias_ns: One sigma of GNSS's own constant error.
        gnss_trust_ns: Hard bound of a GNSS sample: the drag that may pass before it is found.
        coverage_z: Sigmas of the statistical bound.
        stat_floor_ns: Least statistical bound.
        sure_margin: Factor on the sigmas of edges and of wander since the newest row, for the
            statistical bound.
        fresh_rows: Rows below which the rate's sigma is taken for optimistic.
        gate_sigma: Sigmas beyond which a measurement contradicts the own clock.
        gate_share: Share of the round trip that is forgiven besides.
        gate_floor_s: Seconds that are forgiven besides.
        gate_wander: Wander that the gate allows for even when a calmer one was learnt.
        young_count: Accepted measurements until the own clock outvotes a consistent majority.
        young_s: Age until then, s.
        drag_limit: Rate step of a one-way source that is still believed.
        drag_wander: Greatest wander that may excuse a one-way source's rate step.
        gate_rate: Oscillator rate error that the gate forgives since the newest row.
        record_s: Length of a steady rate record before it may accuse a source.
        trust_ratio: Refused sources outweigh the own clock after this many times its own record.
        rate_step_limit: Rate step of the oscillator within the horizon that is still believed.
        rate_step_horizon_s: That horizon.
        adjust_share: Share of its sigma (without what is constant and unseen) by which the mapping
            moves before a new segment is made.
        adjust_floor_ns: Least such move.
        reboot_rate_sigma: Change of rate over a reboot, one sigma.
        expiry_bound_ns: Hard bound beyond which the time is no longer offered (COLD).
    """

    window_rows: int = 128
    knots: int = 12
    absorb_knots: int = 4
    sweeps: int = 1
    sweeps_most: int = 8
    solve_interval: int = 64
    solve_every_s: float = 600.0
    solve_share: int = 12
    solve_pause_s: float = 120.0
    surprise: float = 3.0
    damp: float = 0.7
    wander_start: float = 5e-8
    wander_typical: float = 2e-9
    wander_min: float = 2e-10
    wander_max: float = 3e-7
    wander_weight: float = 2.0
    wander_boost: float = 3.0
    white_fm: float = 1e-10
    rate_sigma: float = 50e-6
    asymmetry: float = 0.07
    min_one_way: float = 0.1
    delay_weight: float = 4.0
    delay_memory: float = 300.0
    path_wander: float = 3e-4
    stamp_ns: float = 200.0
    drift_limit_ppb: float = 1000.0
    proof_drift_ppb: float = 500.0
    thermal_rate: float = 3e-10
    thermal_limit: float = 8e-10
    ramp_rate: float = 2e-9
    thermal_s: float = 1000.0
    gnss_sigma_ns: float = 250.0
    gnss_bias_ns: float = 50.0
    gnss_trust_ns: float = 20_000.0
    coverage_z: float = 3.29
    stat_floor_ns: float = 200.0
    sure_margin: float = 1.6
    fresh_rows: float = 60.0
    gate_sigma: float = 6.0
    gate_share: float = 0.1
    gate_floor_s: float = 10e-6
    gate_wander: float = 5e-8
    young_count: int = 20
    young_s: float = 600.0
    drag_limit: float = 1.5e-7
    drag_wander: float = 2e-8
    gate_rate: float = 2e-6
    record_s: float = 1200.0
    trust_ratio: float = 3.0
    rate_step_limit: float = 3e-6
    rate_step_horizon_s: float = 2400.0
    adjust_share: float = 0.5
    adjust_floor_ns: float = 50.0
    reboot_rate_sigma: float = 1e-7
    expiry_bound_ns: float = 1e9
