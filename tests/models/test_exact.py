"""Exact layers: the trained forward, the folded integers and each way to compute them agree in every element."""

import pickle
import threading

import exact_network
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.models.exact import (
    RUNGS,
    ExactBoundExceeded,
    ExactConv2d,
    ExactLayerMisused,
    ExactOperandTooWide,
    FoldedConv2d,
    MalformedExactLayer,
    at_least,
    errors,
    exact_mode,
    integer_bytes,
    quantise,
    to_int32,
)

HIDDEN, WIDE = (0, 255), (-32768, 32767)
SIGNED = (-128, 127)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small layers: threads only wait for one another
    yield
    torch.set_num_threads(threads)


def definition(x, layer, levels, addend=None):
    """The law in plain Python integers, element by element."""
    weight, bias, shift = layer.weight.tolist(), layer.bias.tolist(), layer.shift.tolist()
    x = x.tolist()
    side, pad = len(weight[0][0]), len(weight[0][0]) // 2
    height, width = len(x[0][0]), len(x[0][0][0])
    y = np.zeros((len(x), len(weight), height, width), np.int64)
    for b, o, i, j in np.ndindex(y.shape):
        acc = bias[levels[b]][o]
        for c in range(len(x[0])):
            for p in range(side):
                for q in range(side):
                    row, column = i + p - pad, j + q - pad
                    if 0 <= row < height and 0 <= column < width:
                        acc += weight[o][c][p][q] * x[b][c][row][column]
        half = 1 << (shift[o] - 1) if shift[o] else 0
        value = ((acc + half) >> shift[o]) + (0 if addend is None else int(addend[b, o, i, j]))
        y[b, o, i, j] = min(max(value, layer.out_range[0]), layer.out_range[1])
    return torch.from_numpy(y)


def folded(weight, bias, shift, *, in_range=HIDDEN, out_range=WIDE):
    weight, bias, shift = (torch.as_tensor(v, dtype=torch.int64) for v in (weight, bias, shift))
    return FoldedConv2d(weight=weight, bias=bias, shift=shift, in_range=in_range, out_range=out_range)


def every_rung(layer, x, level=0, addend=None):
    with exact_mode(paranoid=True):
        return {rung: layer._run(x, layer._row(level, x), rung, addend).to(torch.int64) for rung in RUNGS}


@st.composite
def trained_layers(draw):
    """A layer in training, real inputs on its grid, extra biases or none, something to add or nothing."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    in_exp, out_exp = draw(st.integers(0, 8)), draw(st.integers(-2, 10))
    in_range = draw(st.sampled_from([HIDDEN, SIGNED, (-127, 127), (0, 1)]))
    out_range = draw(st.sampled_from([HIDDEN, WIDE, (-5, 3)]))
    inputs, outputs = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    side, batch = draw(st.sampled_from([1, 3])), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    levels = draw(st.sampled_from([0, 0, 3]))
    layer = ExactConv2d(
        inputs,
        outputs,
        side,
        in_exp=in_exp,
        out_exp=out_exp,
        in_range=in_range,
        out_range=out_range,
        bias=draw(st.booleans()),
        level_bias=levels,
    )
    finest = 2.0 ** -(out_exp - in_exp)
    scale = finest * 2.0 ** draw(st.integers(-26, 6))
    weight = random.normal(0, scale, layer.weight.shape) * random.choice(
        [1, 0], layer.weight.shape, p=[0.9, 0.1]
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(random.normal(0, 40 * 2.0**-out_exp, outputs)))
    layer.project_()
    layer.quantised = True
    x = torch.from_numpy(random.integers(in_range[0], in_range[1] + 1, (batch, inputs, height, width)))
    extra = torch.from_numpy(random.normal(0, 99 * 2.0**-out_exp, (3, outputs))).float() if levels else None
    addend = torch.from_numpy(random.integers(-300, 300, (batch, outputs, height, width)))
    return layer, x, extra, draw(st.sampled_from([None, addend]))


@settings(deadline=None, max_examples=60)
@given(trained_layers())
def test_training_forward_is_the_folded_integers(case):
    layer, x, extra, addend = case
    levels = [b % 3 if extra is not None else 0 for b in range(x.shape[0])]
    per_image = None if extra is None else extra[levels][:, :, None, None]
    real_addend = None if addend is None else addend * 2.0**-layer.out_exp
    trained = layer(x * 2.0**-layer.in_exp, per_image, accumulate=real_addend) * 2.0**layer.out_exp
    integers = layer.fold(extra)
    want = definition(x, integers, levels, addend)
    assert torch.equal(trained.detach().double(), want.double())
    for rung, got in every_rung(integers, x, torch.tensor(levels), addend).items():
        assert torch.equal(got, want), rung
    assert torch.equal(integers(x, torch.tensor(levels), accumulate=addend).to(torch.int64), want)


@pytest.mark.parametrize("shift", range(21))
def test_shifts_round_half_up_also_below_zero(shift):
    half = 2**shift // 2
    sums = [k * 2**shift + half + d for k in range(-3, 4) for d in (-1, 0, 1)]
    sums = [acc for acc in sums if abs(acc) + half < 2**24]
    layer = folded([[[[0]]]] * len(sums), [sums], [shift] * len(sums))
    want = torch.tensor([(acc + half) // 2**shift for acc in sums])  # Python's // floors
    for rung, got in every_rung(layer, torch.zeros(1, 1, 1, 1, dtype=torch.int32)).items():
        assert torch.equal(got.flatten(), want), rung


def test_sums_at_the_bound_are_exact_and_one_above_is_refused():
    half = 2**7
    room = 2**24 - 1 - half - 127 * 255 * 64
    weight = torch.full((2, 64, 1, 1), 127)
    weight[1] *= -1
    layer = folded(weight, [[room, -room]], [8, 8], out_range=WIDE)
    x = torch.full((1, 64, 2, 2), 255)
    want = [min((2**24 - 1) >> 8, 32767), max((-(2**24 - 1) + 2 * half) >> 8, -32768)]
    for rung, got in every_rung(layer, x).items():
        assert got[0, :, 0, 0].tolist() == want, rung
    with pytest.raises(ExactBoundExceeded, match="channel 1 may reach 16777216"):
        folded(weight, [[room, -room - 1]], [8, 8])
    assert (
        every_rung(folded(torch.ones(1, 1, 1, 1), [[2**24 - 1 - 255]], [0]), x[:, :1])["float32"].max()
        == 32767
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"in_range": (0, 1023)}, "input range is 0..1023"),  # ten bits: bf16 would round them
        ({"in_range": (-129, 0)}, "input range"),
        ({"in_range": (5, 4)}, "input range"),
        ({"out_range": (0, 32768)}, "output range"),
        ({"weight": [[[[511]]]]}, "largest weight is 511"),
        ({"weight": [[[[-128]]]]}, "largest weight is 128"),
        ({"shift": [21]}, "shift is 21..21"),
        ({"shift": [-1]}, "shift is -1..-1"),
    ],
)
def test_operands_beyond_eight_bits_are_refused_at_fold(change, says):
    good = {"weight": [[[[127]]]], "bias": [[0]], "shift": [3], "in_range": HIDDEN, "out_range": WIDE}
    folded(**good)
    with pytest.raises(ExactOperandTooWide, match=says):
        folded(**{**good, **change})


def test_training_layer_of_ten_bits_is_refused_when_it_is_built():
    with pytest.raises(ExactOperandTooWide):
        ExactConv2d(4, 4, 1, in_exp=6, out_exp=5, in_range=(0, 1023), out_range=HIDDEN)
    with pytest.raises(ExactLayerMisused, match="even"):
        ExactConv2d(4, 4, 2, in_exp=6, out_exp=5, in_range=HIDDEN, out_range=HIDDEN)
    with pytest.raises(ExactLayerMisused, match="many"):
        ExactConv2d(8000, 4, 3, in_exp=6, out_exp=5, in_range=HIDDEN, out_range=HIDDEN)


def test_integers_stored_as_floats_are_refused():
    good = {"weight": torch.ones(1, 1, 1, 1), "bias": torch.zeros(1, 1), "shift": torch.ones(1)}
    with pytest.raises(ExactLayerMisused, match="float"):
        FoldedConv2d(**good, in_range=HIDDEN, out_range=HIDDEN)


def layer_in_training(**change):
    torch.manual_seed(3)
    arguments = {"in_exp": 5, "out_exp": 5, "in_range": HIDDEN, "out_range": HIDDEN, **change}
    return ExactConv2d(6, 4, 3, **arguments)


def test_weights_that_fit_no_grid_fold_only_after_projection():
    layer = layer_in_training()
    with torch.no_grad():
        layer.weight.mul_(0).add_(200.0)
        layer.bias.fill_(1e6)
    assert layer.headroom() > 1
    with pytest.raises(ExactBoundExceeded):
        layer.fold()
    layer.project_()
    assert layer.headroom() <= 1
    layer.fold()
    fitting = layer.weight.detach().clone()
    layer.project_()
    assert torch.equal(layer.weight, fitting)


def test_gradient_passes_rounding_inside_the_clamp_and_stops_outside():
    layer = layer_in_training()
    x = (torch.randint(0, 40, (2, 6, 5, 5)) / 32).requires_grad_()
    gradients = []
    for layer.quantised in (False, True):
        layer.zero_grad()
        x.grad = None
        y = layer(x)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        gradients.append((y.detach(), x.grad, layer.weight.grad, layer.bias.grad))
    (y_float, *by_float), (y_grid, *by_grid) = gradients
    assert not torch.equal(y_float, y_grid)
    assert (y_float - y_grid).abs().max() < 0.05
    for a, b in zip(by_float, by_grid, strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.98
    with torch.no_grad():
        layer.bias.fill_(-100.0)
    layer.zero_grad()
    layer(x.detach()).sum().backward()
    assert layer.weight.grad.abs().max() == 0


def test_quantised_training_lowers_a_loss():
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        ExactConv2d(2, 8, 1, in_exp=4, out_exp=5, in_range=(-127, 127), out_range=HIDDEN),
        ExactConv2d(8, 1, 1, in_exp=5, out_exp=6, in_range=HIDDEN, out_range=WIDE),
    )
    quantise(net)
    x = torch.randint(-40, 41, (4, 2, 6, 6)) / 16
    target = x[:, :1].abs()
    losses = []
    for _ in range(60):
        loss = (net(x) - target).square().mean()
        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.05 * parameter.grad
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_extra_bias_needs_room_that_wide_outputs_keep_on_request():
    x, extra = torch.zeros(1, 6, 2, 2), torch.ones(1, 4, 1, 1)
    layer_in_training()(x, extra)
    layer_in_training(out_range=WIDE, level_bias=2)(x, extra)
    with pytest.raises(ExactLayerMisused, match="level_bias"):
        layer_in_training(out_range=WIDE)(x, extra)


def test_level_of_each_image_gives_what_each_level_alone_gives():
    layer = layer_in_training(level_bias=5)
    table = torch.linspace(-1, 1, 20).reshape(5, 4)
    integers = layer.fold(table)
    x = torch.randint(0, 256, (3, 6, 4, 4), dtype=torch.uint8)
    levels = [4, 0, 2]
    alone = [integers(x[b : b + 1], level) for b, level in enumerate(levels)]
    assert torch.equal(integers(x, torch.tensor(levels)), torch.cat(alone))
    assert len({integer_bytes(y) for y in (integers(x, level) for level in range(5))}) == 5
    for wrong in (5, -1, torch.tensor([0, 1])):
        with pytest.raises(ExactLayerMisused, match="level"):
            integers(x, wrong)


# -- stored layers ------------------------------------------------------------------------------------------


def test_state_gives_the_layer_back_as_integers_only():
    integers = layer_in_training().fold()
    state = integers.state("exact.a.")
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "exact.a.weight": torch.int8,
        "exact.a.bias": torch.int32,
        "exact.a.shift": torch.int8,
        "exact.a.ranges": torch.int32,
    }
    again = FoldedConv2d.from_state({**state, "other": torch.zeros(1)}, "exact.a.")
    x = torch.randint(0, 256, (1, 6, 3, 3))
    assert torch.equal(again(x), integers(x))
    assert (again.in_range, again.out_range) == (HIDDEN, HIDDEN)


@pytest.mark.parametrize(
    ("name", "damage", "error"),
    [
        ("weight", lambda t: t * 0 - 128, ExactOperandTooWide),
        ("bias", lambda t: t * 0 + 2**24, ExactBoundExceeded),
        ("bias", lambda t: t * 0 - 2**31, ExactBoundExceeded),
        ("shift", lambda t: t * 0 + 21, ExactOperandTooWide),
        ("ranges", lambda t: t * 4, ExactOperandTooWide),
        ("ranges", lambda t: t[:3], MalformedExactLayer),
        ("weight", lambda t: t.to(torch.int16), MalformedExactLayer),
        ("weight", lambda t: t[:, :, :, :2], MalformedExactLayer),
        ("weight", lambda t: t[:, :0], MalformedExactLayer),
        ("bias", lambda t: t[:, :3], MalformedExactLayer),
        ("bias", lambda t: t[:0], MalformedExactLayer),
        ("shift", lambda t: t[:3], MalformedExactLayer),
        ("shift", None, MalformedExactLayer),
    ],
)
def test_damaged_state_is_refused(name, damage, error):
    state = layer_in_training().fold().state("p.")
    changed = state.pop("p." + name)
    if damage is not None:
        state["p." + name] = damage(changed)
    with pytest.raises(error) as caught:
        FoldedConv2d.from_state(state, "p.")
    assert caught.value.exit_status == 4


def test_errors_survive_pickling_and_say_what_to_do():
    samples = [
        errors.ExactLayerMisused("a", "B"),
        errors.ExactBoundExceeded(1, 2, 3),
        errors.ExactOperandTooWide("a", "b", "c"),
        errors.MalformedExactLayer("a", "b"),
        errors.InexactArithmetic("a"),
    ]
    for error in samples:
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert len({error.code for error in samples}) == len(samples)


# -- one result ---------------------------------------------------------------------------------------------


def test_golden_network_gives_its_hash_by_every_rung():
    layers, x = exact_network.network(), exact_network.inputs()
    for rung in RUNGS:
        with at_least(rung):
            y = exact_network.run(layers, x, lambda layer, data: layer(data))
        assert exact_network.digest(y) == exact_network.GOLDEN, rung


def test_batch_order_layout_and_threads_don_t_matter():
    layers, x = exact_network.network(), exact_network.inputs()

    def outputs(data):
        return to_int32(exact_network.run(layers, data, lambda layer, data: layer(data)))

    order = torch.tensor([5, 0, 15, 3, 9, 1, 2, 4, 6, 7, 8, 10, 11, 12, 13, 14])
    back = torch.argsort(order)
    ways = {
        "singly": torch.cat([outputs(x[b : b + 1]) for b in range(16)]),
        "fives": torch.cat([outputs(x[b : b + 5]) for b in range(0, 16, 5)]),
        "shuffled": outputs(x[order])[back],
        "channels_last": outputs(x.float().contiguous(memory_format=torch.channels_last)),
        "strided": outputs(x.float().transpose(2, 3).contiguous().transpose(2, 3)),
    }
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            ways[f"{count} threads"] = outputs(x)
    finally:
        torch.set_num_threads(threads)
    assert {exact_network.digest(y): way for way, y in ways.items()}.keys() == {exact_network.GOLDEN}


def test_tiles_with_a_halo_give_the_whole_plane():
    layers = exact_network.network()[1:3]  # two 3x3: a halo of two
    x = torch.randint(0, 256, (1, 8, 13, 11), generator=torch.Generator().manual_seed(2))

    def outputs(data):
        return layers[1](layers[0](data))

    whole, halo = outputs(x), 2
    tiled = torch.zeros_like(whole)
    for top in range(0, 13, 5):
        for left in range(0, 11, 4):
            up, start = max(0, top - halo), max(0, left - halo)
            tile = outputs(x[:, :, up : top + 5 + halo, start : left + 4 + halo])
            inner = tile[:, :, top - up :, left - start :][:, :, :5, :4]
            tiled[:, :, top : top + 5, left : left + 4] = inner
    assert torch.equal(tiled, whole)


def test_negative_zero_never_reaches_bytes():
    zeros = torch.tensor([[-0.0, 0.0]]).clamp(-0.0, 255)
    assert str(zeros[0, 0].item()) == "-0.0"  # clamp keeps it
    assert integer_bytes(zeros) == bytes(8)
    layer = folded(-torch.ones(1, 1, 1, 1), [[0]], [0])
    assert integer_bytes(layer(-torch.zeros(1, 1, 1, 1))) == bytes(4)


def test_bytes_are_little_endian_in_nchw_order():
    values = torch.tensor([[[[1, -2]], [[3, 2**24]]]]).float()
    want = np.array([1, -2, 3, 2**24], "<i4").tobytes()
    assert integer_bytes(values) == want
    assert integer_bytes(values.contiguous(memory_format=torch.channels_last)) == want


def test_threads_share_one_process_without_mixing():
    layers, x = exact_network.network(), exact_network.inputs()
    found = []

    def work():
        found.extend(
            exact_network.digest(exact_network.run(layers, x, lambda layer, data: layer(data)))
            for _ in range(3)
        )

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [exact_network.GOLDEN] * 9
