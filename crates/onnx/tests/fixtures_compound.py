"""Operators that stand for several others: colours, fused steps, cells, parts of lists, transforms."""

import numpy as np
import tensorflow as tf

raw = tf.raw_ops
tf1 = tf.compat.v1
F = np.float32


def internal(op, inputs, **attributes):
    """A node of an operator that the Python package has no function for."""
    attrs = {"T": tf1.AttrValue(type=tf.float32.as_datatype_enum)}
    for name, value in attributes.items():
        attr = tf1.AttrValue()
        if isinstance(value, list):
            for item in value:
                if isinstance(item, str):
                    attr.list.s.append(item.encode())
                elif isinstance(item, tf.DType):
                    attr.list.type.append(item.as_datatype_enum)
                else:
                    attr.list.i.append(item)
        elif isinstance(value, str):
            attr.s = value.encode()
        elif isinstance(value, bool):
            attr.b = value
        elif isinstance(value, int):
            attr.i = value
        else:
            attr.f = value
        attrs[name] = attr
    inputs = [tf.convert_to_tensor(x) for x in inputs]
    return tf1.get_default_graph().create_op(op, inputs, [tf.float32], attrs=attrs, name=op[1:]).outputs[0]


def colour_cases(case, numbers):
    colours = np.abs(numbers(2, 5, 4, 3)) / 3
    grey = np.array([[[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [0.2, 0.2, 0.7], [0.7, 0.2, 0.7], [0.7, 0.7, 0.1], [-0.5, 0.25, 1.5], [-1, -2, -3]]], F)
    opened = [[None, None, None, 3]]
    for array in (colours, colours.astype(np.float64)):
        case("RGBToHSV", "plain", lambda x: raw.RGBToHSV(images=x), [array], opened)
        case("HSVToRGB", "plain", lambda x: raw.HSVToRGB(images=x), [array], opened)
    case("RGBToHSV", "edges", lambda x: raw.RGBToHSV(images=x), [grey])
    case("HSVToRGB", "edges", lambda x: raw.HSVToRGB(images=x), [grey])
    for factor in (0.0, 0.4, 2.5):
        case("AdjustSaturation", f"{factor}", lambda x, s=factor: raw.AdjustSaturation(images=x, scale=s), [colours], opened, [[grey[np.newaxis, :, :7]]])
        case("AdjustContrastv2", f"{factor}", lambda x, s=factor: raw.AdjustContrastv2(images=x, contrast_factor=s), [colours], [[None, None, None, None]], [[numbers(1, 3, 7, 2)]])
    for delta in (-0.3, 0.0, 0.7):
        case("AdjustHue", f"{delta}", lambda x, s=delta: raw.AdjustHue(images=x, delta=s), [colours], opened, [[grey[np.newaxis]]])
    case("AdjustHue", "fed", lambda x, s: raw.AdjustHue(images=x, delta=s), [colours, F(0.2)], opened + [[]], [[colours[:1], F(-0.9)]])
    case("AdjustContrastv2", "image", lambda x: raw.AdjustContrastv2(images=x, contrast_factor=1.5), [colours[0]], [[None, None, 3]])
    case("AdjustContrastv2", "whole", lambda x: tf.image.adjust_contrast(x, 1.5), [(colours * 255).astype(np.uint8)], opened)


def fused_cases(case, numbers):
    image, kernel, bias = numbers(2, 8, 9, 3), numbers(3, 3, 3, 4), numbers(4)
    norm = [np.abs(numbers(4)) + 0.1, numbers(4), numbers(4), np.abs(numbers(4)) + 0.1]
    moves = dict(strides=[1, 2, 2, 1], padding="SAME", dilations=[1, 1, 1, 1], data_format="NHWC", explicit_paddings=[])
    open_image = [[None, None, None, 3]]
    for steps in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"], ["BiasAdd", "Elu"], ["BiasAdd", "LeakyRelu"]):
        label = "_".join(steps).lower()
        case("_FusedConv2D", label, lambda x, s=steps: internal("_FusedConv2D", [x, kernel, bias], fused_ops=s, num_args=1, num_host_args=0, TArgs=[tf.float32], epsilon=0.0, leakyrelu_alpha=0.3, **moves), [image], open_image, [[numbers(1, 5, 5, 3)]])
        case("_FusedMatMul", label, lambda x, s=steps: internal("_FusedMatMul", [x, kernel[0, 0], bias], fused_ops=s, num_args=1, epsilon=0.0, leakyrelu_alpha=0.3, transpose_a=False, transpose_b=False), [numbers(5, 3)])
    for step in ("Sigmoid", "Tanh"):
        case("_FusedMatMul", f"biasadd_{step}".lower(), lambda x, s=step: internal("_FusedMatMul", [x, kernel[0, 0], bias], fused_ops=["BiasAdd", s], num_args=1, epsilon=0.0, leakyrelu_alpha=0.3, transpose_a=False, transpose_b=False), [numbers(5, 3)])
    for steps in (["FusedBatchNorm"], ["FusedBatchNorm", "Relu"]):
        case("_FusedConv2D", "_".join(steps).lower(), lambda x, s=steps: internal("_FusedConv2D", [x, kernel, *norm], fused_ops=s, num_args=4, num_host_args=0, TArgs=[tf.float32] * 4, epsilon=0.01, leakyrelu_alpha=0.2, **moves), [image], open_image)
    # Of several images, TensorFlow pads the first alone as it should.
    for mode in ("REFLECT", "SYMMETRIC"):
        case("FusedPadConv2D", mode.lower(), lambda x, m=mode: raw.FusedPadConv2D(input=x, paddings=[[0, 0], [1, 2], [2, 1], [0, 0]], filter=kernel, mode=m, strides=[1, 2, 2, 1], padding="VALID"), [image[:1]])


def cell_cases(case, numbers):
    x, state, hidden = numbers(3, 5), numbers(3, 4), numbers(3, 4)
    # Behind the last row that is computed, TensorFlow leaves the other results as its memory was.
    of_states = lambda results: [results.cs, results.h]
    w, b, peep = numbers(9, 16), numbers(16), [numbers(4) for _ in range(3)]
    opened = [[None, 5], [None, 4], [None, 4]]
    fewer = [[x[:1], state[:1] * 3, hidden[:1]]]
    for label, options in (("plain", {}), ("peeping", dict(use_peephole=True, cell_clip=-1.0)), ("biased", dict(forget_bias=0.5, cell_clip=0.7))):
        case("LSTMBlockCell", label, lambda x, s, h, o=options: list(raw.LSTMBlockCell(x=x, cs_prev=s, h_prev=h, w=w, wci=peep[0], wcf=peep[1], wco=peep[2], b=b, **o)), [x, state, hidden], opened, fewer)
        xs = numbers(6, 3, 5)
        rows = [[None, None, 5], [None, 4], [None, 4]]
        case("BlockLSTM", label, lambda x, s, h, o=options: list(raw.BlockLSTM(seq_len_max=np.int64(6), x=x, cs_prev=s, h_prev=h, w=w, wci=peep[0], wcf=peep[1], wco=peep[2], b=b, **o)), [xs, state, hidden], [[6, None, 5], *opened[1:]])
        options = {k: v for k, v in options.items() if k != "forget_bias"}
        case("BlockLSTMV2", label, lambda x, s, h, o=options: of_states(raw.BlockLSTMV2(seq_len_max=tf.cast(tf.shape(x)[0] - 2, tf.int64), x=x, cs_prev=s, h_prev=h, w=w, wci=peep[0], wcf=peep[1], wco=peep[2], b=b, **o)), [xs, state, hidden], rows, [[xs[:3, :1], state[:1], hidden[:1]]])
    ru, c, bru, bc = numbers(9, 8), numbers(9, 4), numbers(8), numbers(4)
    case("GRUBlockCell", "plain", lambda x, h: list(raw.GRUBlockCell(x=x, h_prev=h, w_ru=ru, w_c=c, b_ru=bru, b_c=bc)), [x, hidden], [[None, 5], [None, 4]], [[x[:1], hidden[:1]]])


def list_cases(case, numbers):
    rows = numbers(6, 4, 2)
    whole = np.arange(48, dtype=np.int64).reshape(6, 4, 2) * 2**40
    for array in (rows, whole):
        listing_cases(case, array, tf.as_dtype(array.dtype))


def listing_cases(case, array, kind):
    unknown = np.array(-1, np.int32)

    def reserved(n=6, shape=(4, 2)):
        return raw.TensorListReserve(element_shape=np.array(shape, np.int32), num_elements=np.int32(n), element_dtype=kind)

    def stacked(handle):
        return raw.TensorListStack(input_handle=handle, element_shape=unknown, element_dtype=kind)

    def concatenated(x):
        handle = raw.TensorListFromTensor(tensor=x, element_shape=np.array([4, 2], np.int32))
        return list(raw.TensorListConcatV2(input_handle=handle, element_shape=np.array([-1, 2], np.int32), leading_dims=np.zeros([0], np.int64), element_dtype=kind))

    case("TensorListConcatV2", "plain", concatenated, [array], [[None, 4, 2]], [[array[:1]]])
    case("TensorListSplit", "plain", lambda x: stacked(raw.TensorListSplit(tensor=x, element_shape=np.array([-1, 2], np.int32), lengths=tf.constant([8, 8, 8], tf.int64))), [array.reshape(24, 2)], [[None, 2]], fails=[[array.reshape(24, 2)[:23]]])
    at = np.array([4, 0, 4, 2], np.int32)
    # TensorFlow itself ends with a failed check where these lists are no floats.
    into = lambda x, i: stacked(raw.TensorListScatterIntoExistingList(input_handle=reserved(), tensor=x, indices=i))
    onto = lambda x, i: stacked(raw.TensorListScatterIntoExistingList(input_handle=raw.TensorListFromTensor(tensor=x, element_shape=unknown), tensor=x[:2] * 2, indices=i))
    if kind == tf.float32:
        case("TensorListScatterIntoExistingList", "plain", into, [array[:4], at], [[None, 4, 2], [None]], [[array[:1], at[:1]], [array[:2], np.array([6, 1], np.int32)]])
        case("TensorListScatterIntoExistingList", "onto", onto, [array, at[:2]], [[None, 4, 2], [None]])
    for n in (-1, 6):
        case("TensorListScatterV2", f"{n}".replace("-", "m"), lambda x, i, n=n: stacked(raw.TensorListScatterV2(tensor=x, indices=i, element_shape=np.array([4, 2], np.int32), num_elements=np.int32(n))), [array[:4], at], [[None, 4, 2], [None]], [[array[:1], np.array([3], np.int32)]])

    def grown(x, i, shape=(4, 2), n=2):
        handle = reserved(n, shape)
        for row in range(3):
            handle = raw.TensorListSetItem(input_handle=handle, index=i[row], item=x[row], resize_if_index_out_of_bounds=True)
        return [stacked(handle), raw.TensorListLength(input_handle=handle)]

    # An index below zero ends TensorFlow itself.
    where = [np.array(own, np.int32) for own in ([0, 1, 1], [0, 2, 1], [5, 1, 0])]
    for label, options in (("plain", {}), ("of_open", {"shape": -1}), ("of_none", {"shape": -1, "n": 0})):
        case("TensorListSetItem", f"grown_{label}", lambda x, i, o=options: grown(x, i, **o), [array, where[0]], [[None, 4, 2], [3]], [[array, where[1]], [array, where[2]]])

    def popped(x):
        handle = raw.TensorListFromTensor(tensor=x, element_shape=np.array([4, 2], np.int32))
        rest, item = raw.TensorListPopBack(input_handle=handle, element_shape=unknown, element_dtype=kind)
        return [stacked(rest), item]

    case("TensorListPopBack", "plain", popped, [array], [[None, 4, 2]], [[array[:2]]], fails=[[array[:0]]])


def spectrum_cases(case, numbers):
    both = lambda z: [tf.math.real(z), tf.math.imag(z)]
    x = numbers(3, 16)
    for n in (1, 2, 7, 12, 16, 20):
        case("RFFT", f"{n}", lambda x, n=n: both(tf.signal.rfft(x, [n])), [x], [[None, None]], [[x[:1, :9]]])
        case("RFFT", f"{n}_known", lambda x, n=n: both(tf.signal.rfft(x, [n])), [x], [[None, 16]])
    for n in (2, 7, 12, 16, 20):
        case("IRFFT", f"{n}", lambda x, y, n=n: tf.signal.irfft(tf.complex(x, y), [n]), [x[:, :9], x[:, 7:]], [[None, 9]] * 2)
    for op in ("FFT", "IFFT"):
        case(op, "plain", lambda x, y, o=op: both(getattr(raw, o)(input=tf.complex(x, y))), [x, x[:, ::-1].copy()], [[None, 16]] * 2)
    case("ComplexAbs", "plain", lambda x, y: tf.abs(tf.complex(x, y)), [x, x[:, ::-1].copy()])
    case("Angle", "plain", lambda x, y: tf.math.angle(tf.complex(x, y)), [x, x[:, ::-1].copy()])
    case("Complex", "moved", lambda x, y: both(tf.transpose(tf.reshape(tf.math.conj(tf.complex(x, y)), [-1, 4, 4]), [2, 0, 1])[1:, tf.newaxis]), [x, x[:, ::-1].copy()])
    case("Complex", "broadcast", lambda x, y: both(tf.complex(x, y) * tf.complex(y, x) - tf.complex(x, y)), [x, x[:, :1]], [[None, 16], [None, 1]])
    case("Complex", "of_real", lambda x: both(tf.cast(x, tf.complex64) * tf.constant(1.5 - 2j, tf.complex64)), [x])
    case("Complex", "power", lambda x, y: both(tf.exp(tf.complex(x, y))), [x, x])
    case("Complex", "others", lambda x, y: tf.math.real(tf.sqrt(tf.complex(x, y))), [x, x], expect="refused")
    sound = np.sin(np.arange(2000) * 0.3).astype(F) + numbers(2000) * F(0.1)
    wave = np.stack([sound, np.cos(np.arange(2000) ** 1.3 * 0.01).astype(F)])
    spectrum = lambda x: tf.signal.stft(x, 400, 160, 512)
    case("RFFT", "stft", lambda x: tf.abs(spectrum(x)), [wave], [[None, None]], [[wave[:1, :1200]]])

    def cepstrum(x):
        power = tf.abs(spectrum(x)) ** 2
        mel = tf.matmul(power, tf.signal.linear_to_mel_weight_matrix(40, 257, 16000, 80.0, 7600.0))
        return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(mel + 0.01))[..., :13]

    case("RFFT", "mfcc", cepstrum, [wave], [[None, 2000]])
    case("IRFFT", "there_and_back", lambda x: tf.signal.inverse_stft(spectrum(x), 400, 160, 512, window_fn=tf.signal.inverse_stft_window_fn(160)), [wave], [[None, 2000]])


def sampling_cases(case, numbers):
    image = numbers(2, 11, 7, 3)
    opened = [[None, None, None, 3]]
    for kernel in "lanczos1 lanczos3 lanczos5 gaussian box triangle keyscubic mitchellcubic".split():
        for antialias in (True, False):
            build = lambda x, k=kernel, a=antialias: raw.ScaleAndTranslate(images=x, size=[5, 9], scale=[5 / 11, 9 / 7], translation=[0.0, 0.0], kernel_type=k, antialias=a)
            case("ScaleAndTranslate", f"{kernel}_{antialias}".lower(), build, [image])
    case("ScaleAndTranslate", "moved", lambda x, s, t: raw.ScaleAndTranslate(images=x, size=[6, 6], scale=s, translation=t, kernel_type="triangle"), [image, np.array([0.5, 2.0], F), np.array([-1.5, 2.25], F)], opened + [[2], [2]])
    case("ScaleAndTranslate", "open", lambda x: tf.image.resize(x, [6, 5], antialias=True), [image], opened, [[image[:1, :4, :3]]])
    case("ScaleAndTranslate", "open_target", lambda x, n: tf.image.resize(x, n, "lanczos3"), [image, np.array([4, 9], np.int32)], opened + [[2]])
    case("ScaleAndTranslate", "whole", lambda x: tf.image.resize(x, [6, 5], "bicubic", antialias=True), [(np.abs(image) * 80).astype(np.uint8)], opened)
    case("ShapeN", "plain", lambda x, y: raw.ShapeN(input=[x, y]), [image, numbers(4)], [[None, None, 7, 3], [None]])


def decoding_cases(case, numbers):
    """Greedy texts: repeats, blanks, steps behind the end, texts of nothing."""
    scores = numbers(9, 4, 3).repeat(2, 0)[:13]
    lengths = np.array([13, 5, 0, 9], np.int32)
    opened = [[None, None, 3], [None]]
    few = numbers(2, 1, 3)
    ties = np.zeros((4, 2, 3), F)
    for merge in (False, True):
        for blank in (-1, 0, -3, 1):
            build = lambda x, n, m=merge, b=blank: raw.CTCGreedyDecoder(inputs=x, sequence_length=n, merge_repeated=m, blank_index=b)
            runs = [[few, np.array([1], np.int32)], [ties, np.array([4, 2], np.int32)]]
            case("CTCGreedyDecoder", f"{merge}_{blank}".lower(), build, [scores, lengths], opened, runs)
    keras = lambda x, n: tf.sparse.to_dense(tf.nn.ctc_greedy_decoder(x, n)[0][0], default_value=-1)
    case("CTCGreedyDecoder", "dense", keras, [scores, lengths], opened, [[few, np.array([2], np.int32)]])
    case("CTCGreedyDecoder", "double", lambda x, n: raw.CTCGreedyDecoder(inputs=x, sequence_length=n), [scores.astype(np.float64), lengths], opened, fails=[[few.astype(np.float64), np.array([3], np.int32)]])


GROUPS = (decoding_cases, sampling_cases, colour_cases, fused_cases, cell_cases, list_cases, spectrum_cases)
