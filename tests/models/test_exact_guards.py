"""The guards: switches set and restored, wrong kernels noticed, safer ways taken."""

import logging
import threading

import exact_network
import pytest
import torch
from torch.nn import functional

from recbatch.models.exact import (
    RUNGS,
    ExactLayerMisused,
    InexactArithmetic,
    at_least,
    exact_mode,
    guard_environment,
    ladder_report,
    mode,
    selftest,
)


@pytest.fixture(autouse=True)
def _fresh_trials():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small layers: threads only wait for one another
    selftest.forget_trials()
    yield
    selftest.forget_trials()
    torch.set_num_threads(threads)


# -- exact_mode ---------------------------------------------------------------------------------------------


def switches():
    nnpack = torch.backends.nnpack.set_flags(True)[0]
    torch.backends.nnpack.set_flags(nnpack)
    return (
        torch.backends.mkldnn.conv.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.cudnn.enabled,
        nnpack,
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.fixture
def _loose_switches():
    before = torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.conv.fp32_precision = before


@pytest.mark.usefixtures("_loose_switches")
def test_switches_are_strict_inside_and_restored_after():
    exact = ("ieee", "ieee", "ieee", "ieee", False, False, True, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = switches()
        assert before[0] == "bf16"
        assert before[-1] is True
        with exact_mode():
            assert switches() == exact
            assert mode.active()
            with exact_mode(paranoid=True):
                assert switches() == exact
                assert mode.paranoid()
            assert switches() == exact
            assert not mode.paranoid()
        assert switches() == before
        with pytest.raises(RuntimeError, match="inside"), exact_mode():
            raise RuntimeError("inside")
        assert switches() == before
    assert not mode.active()
    torch.get_float32_matmul_precision()  # raises where old and new switches were mixed


def test_another_thread_waits_outside():
    entered, release, order = threading.Event(), threading.Event(), []

    def first():
        with exact_mode():
            entered.set()
            release.wait(30)
            order.append("first")

    def second():
        entered.wait(30)
        assert not mode.active()
        with exact_mode():
            order.append("second")

    workers = [threading.Thread(target=first), threading.Thread(target=second)]
    for worker in workers:
        worker.start()
    entered.wait(30)
    workers[1].join(0.1)  # gives the second a chance to do wrong
    release.set()
    for worker in workers:
        worker.join()
    assert order == ["first", "second"]


def test_variables_that_ask_for_reduced_precision_are_unset(monkeypatch, caplog):
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "bf16")
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "strict")
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with caplog.at_level(logging.WARNING):
        assert guard_environment() == ("ONEDNN_DEFAULT_FPMATH_MODE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
    assert len(caplog.records) == 2
    assert guard_environment() == ()


# -- ladder -------------------------------------------------------------------------------------------------

SHAPE = (32, 32, 3, 3)


def input_of_sixteen():
    return torch.zeros(16, 32, 9, 9)


def test_an_honest_machine_stays_on_the_first_rung():
    with exact_mode():
        assert selftest.choose(SHAPE, (0, 255), input_of_sixteen()) == "float32"
        assert selftest.choose(SHAPE, (-127, 127), torch.zeros(1, 32, 1, 1)) == "float32"
        for rung in RUNGS:
            with at_least(rung), at_least("float32"):
                assert selftest.choose((5, 32, 1, 1), (0, 255), torch.zeros(2, 32, 3, 2)) == rung
    trials = ladder_report()
    assert len(trials) == 6
    assert {trial.failures for trial in trials} == {()}


def test_large_planes_share_a_trial_of_bounded_size():
    with exact_mode():
        for height in (500, 700, 900):
            selftest.choose((2, 2, 1, 1), (0, 255), torch.zeros(1, 2, height, 40))
    (trial,) = ladder_report()
    assert trial.input_shape == (1, 2, selftest.PLANE // 40, 40)


def test_unknown_rung_is_refused():
    with pytest.raises(ExactLayerMisused, match="float16"), at_least("float16"):
        pass


def winograd(x, weight, bias):
    """A transform's typical error: a sixth here and there in large sums."""
    y = functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    return y + y * 2.0**-22


def saturating_pairs(x, weight, bias):
    """As int8 kernels without VNNI: sums of two products stop at int16."""
    pairs = [
        functional.conv2d(x[:, c : c + 2], weight[:, c : c + 2], None, padding=weight.shape[2] // 2)
        for c in range(0, x.shape[1], 2)
    ]
    unit = weight.abs()[weight != 0].min()
    y = sum(pair.clamp(-32768 * unit, 32767 * unit) for pair in pairs)
    return y if bias is None else y + bias[:, None, None]


def one_wrong_channel(x, weight, bias):
    y = functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    y[:, 7] += weight[7].abs()[weight[7] != 0].min()
    return y


def wrong_border(x, weight, bias):
    """Right everywhere but in one corner of the last image."""
    y = functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    y[-1, :, -1, -1] = 0
    return y


def not_a_number(x, weight, bias):
    return functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2) * float("nan")


def raises(x, weight, bias):
    raise RuntimeError("not implemented for this device")


def bfloat(x, weight, bias):
    return functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2).to(torch.bfloat16).float()


WRONG = [winograd, saturating_pairs, one_wrong_channel, wrong_border, not_a_number, raises, bfloat]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_left_for_the_next_rung(wrong, monkeypatch, caplog):
    monkeypatch.setitem(selftest.KERNELS, "float32", wrong)
    with exact_mode(), caplog.at_level(logging.WARNING):
        assert selftest.choose(SHAPE, (0, 255), input_of_sixteen()) == "unfold"
        selftest.choose(SHAPE, (0, 255), input_of_sixteen())
    (trial,) = ladder_report()
    assert len(trial.failures) == 1
    assert trial.failures[0].startswith("float32: ")
    assert len(caplog.records) == 1  # said once


def test_network_is_right_where_nothing_but_integers_works(monkeypatch):
    layers, x = exact_network.network(), exact_network.inputs(2)
    want = exact_network.digest(exact_network.run(layers, x, exact_network.by_rung("int64")))

    def outputs():
        return exact_network.digest(exact_network.run(layers, x, lambda layer, data: layer(data)))

    true_sums = selftest.integer_sums
    monkeypatch.setitem(selftest.KERNELS, "float32", winograd)
    assert outputs() == want
    assert {trial.rung for trial in ladder_report()} == {"unfold"}
    selftest.forget_trials()
    monkeypatch.setitem(selftest.KERNELS, "unfold", raises)
    assert outputs() == want
    assert {trial.rung for trial in ladder_report()} == {"float64"}
    selftest.forget_trials()

    def wrong_float64(rung, *rest):
        return true_sums(rung, *rest) + (rung == "float64")

    monkeypatch.setattr(selftest, "integer_sums", wrong_float64)
    assert outputs() == want
    assert {trial.rung for trial in ladder_report()} == {"int64"}
    assert all(len(trial.failures) == 3 for trial in ladder_report())


def test_grid_check_names_a_transform(monkeypatch):
    layer, x = exact_network.network()[1], torch.full((1, 8, 6, 6), 255.0)
    monkeypatch.setattr(selftest, "choose", lambda *_: "float32")
    with exact_mode(paranoid=True):
        layer(x)
        with pytest.raises(InexactArithmetic, match=r"not integers in 0\.\.255"):
            layer(x + 1)
        with pytest.raises(InexactArithmetic, match=r"not integers in 0\.\.255"):
            layer(x - 0.5)
        monkeypatch.setitem(selftest.KERNELS, "float32", winograd)
        with pytest.raises(InexactArithmetic, match="off their grid"):
            layer(x)


def nnpack_is_wrong_here():
    """Whether this build and CPU take NNPACK's transforms for a batch of 16, as some do."""
    x = torch.full((16, 32, 9, 9), 255.0)
    weight = torch.arange(-50, 32 * 32 * 9 - 50).remainder(101).reshape(SHAPE).float()
    y = functional.conv2d(x, weight, padding=1)
    return not torch.equal(y.double(), functional.conv2d(x.double(), weight.double(), padding=1))


def test_nnpack_is_caught_where_it_is_wrong():
    before = torch.backends.nnpack.set_flags(True)
    torch.backends.mkldnn.enabled = False
    try:
        if not nnpack_is_wrong_here():
            pytest.skip("this build of torch, on this CPU, doesn't use NNPACK's transforms")
        assert selftest.choose(SHAPE, (0, 255), input_of_sixteen()) == "unfold"
        selftest.forget_trials()
        layer, x = exact_network.network()[2], torch.full((16, 24, 9, 9), 255.0)
        with exact_mode(paranoid=True):  # which turns NNPACK off
            assert selftest.choose(SHAPE, (0, 255), input_of_sixteen()) == "float32"
            torch.backends.nnpack.set_flags(True)
            with pytest.raises(InexactArithmetic, match="off their grid"):
                layer._run(x, layer._row(0, x), "float32", None)
    finally:
        torch.backends.mkldnn.enabled = True
        torch.backends.nnpack.set_flags(*before)
