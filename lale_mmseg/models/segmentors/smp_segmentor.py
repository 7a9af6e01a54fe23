"""Any network of segmentation_models_pytorch (smp) as a segmentor of mmsegmentation."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from torch import nn

from ...errors import ConfigError
from ..decode_heads import SMPHead
from ..external import import_extra
from ..layers import check_dropout, drop_behind
from .smp_stages import inner_stages

#: Arguments of `smp.create_model` that `network_cfg` may not have, with what sets them.
_SET_ELSEWHERE = {
    'arch': 'model.arch',
    'encoder_name': 'model.encoder_name',
    'encoder_weights': 'model.encoder_weights',
    'in_channels': 'model.in_channels',
    'classes': 'model.decode_head.num_classes',
    'activation': 'nothing: losses take logits',
    'aux_params': 'nothing: there is no loss of whole images',
    **{f'pretrained{end}': 'model.encoder_weights' for end in ('', '_cfg', '_cfg_overlay')},
    'checkpoint_path': 'model.encoder_weights',
}
#: Arguments of heads that the network settles.
_SETTLED = (
    *('in_channels', 'channels', 'in_index', 'input_transform', 'dropout_ratio'),
    *('conv_cfg', 'norm_cfg', 'act_cfg', 'init_cfg', 'decoder', 'segmentation_head', 'widths'),
)
#: Architectures whose encoders give more than maps.
_UNFIT = {'dpt': 'its decoder takes the tokens of a vision transformer beside its maps'}


@MODELS.register_module()
class SMPSegmentor(EncoderDecoder):
    """Takes any architecture and encoder of smp; trained and tested as every other segmentor of this package.

    `backbone` is the network's encoder and `decode_head` its decoder with the classifier, so that hooks, learning rates
    by part and compilation know them by their usual names. Outside of training the network is smp's own, bit for bit.

    Args:
        arch: Name of the architecture: 'unet', 'deeplabv3plus', 'fpn', ...
        encoder_name: Name of the encoder, such as 'resnet34', or 'tu-' and the name of a network of timm.
        encoder_weights: Name of pretrained weights in smp ('imagenet'), a local file with weights of the encoder, or
            None for random ones. `init_weights` loads them, which training alone calls.
        in_channels: Number of input bands.
        decoder_dropout: Probability to drop a channel between the stages of the decoder, in training: behind the
            stages of `inner_stages`. What an architecture drops by itself is set in `network_cfg`.
        network_cfg: Further arguments of `smp.create_model`, such as `encoder_depth` or `decoder_channels`.
        decode_head: Config of `SMPHead`: `num_classes`, `loss_decode`, `align_corners`, ...
        backbone: To be left out: the network has it.
        **kwargs: The other arguments of `EncoderDecoder`, which rejects unknown ones.

    Raises:
        ConfigError: smp is not installed, does not know a name or an argument, or the architecture does not fit.
    """

    def __init__(
        self,
        arch: str = 'unet',
        encoder_name: str = 'resnet34',
        encoder_weights: str | None = 'imagenet',
        in_channels: int = 3,
        decoder_dropout: float = 0.3,
        network_cfg: Mapping[str, Any] | None = None,
        *,
        decode_head: Mapping[str, Any],
        backbone: None = None,
        **kwargs: Any,
    ) -> None:
        if backbone is not None:
            raise ConfigError('model.backbone: SMPSegmentor makes it; set arch, encoder_name and network_cfg')
        if encoder_weights is not None and not isinstance(encoder_weights, str):
            raise ConfigError(f'model.encoder_weights={encoder_weights!r}: a name, a path or None is due')
        check_dropout('model.decoder_dropout', decoder_dropout)
        head = _checked_head(decode_head)
        classes = head.get('out_channels') or head['num_classes']
        options = dict(network_cfg or {})
        _check_names(arch, encoder_name, options)
        build = partial(_build, arch=arch, encoder_name=encoder_name, in_channels=in_channels, classes=classes)
        network = build(**options)
        stages = inner_stages(arch.lower(), network.decoder) if decoder_dropout else ()
        drop_behind(stages, decoder_dropout)
        encoder = ConfigDict(
            type='SMPEncoder',
            encoder=network.encoder,
            name=encoder_name,
            pretrained_weights=encoder_weights,
            in_channels=in_channels,
            divisible=network.requires_divisible_input_shape,
            rebuild=partial(_encoder_of, build, options),
        )
        head.update(decoder=network.decoder, segmentation_head=network.segmentation_head)
        head['widths'] = list(network.encoder.out_channels)
        super().__init__(backbone=encoder, decode_head=ConfigDict(head), **kwargs)


def _build(encoder_weights: str | None = None, **options: Any) -> Any:
    """A network of smp, by default without pretrained weights."""
    smp = import_extra('segmentation_models_pytorch')
    if encoder_weights is not None:
        return smp.create_model(encoder_weights=encoder_weights, **options)
    try:
        return smp.create_model(encoder_weights=None, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        names = f'arch={options["arch"]!r}, encoder_name={options["encoder_name"]!r}'
        raise ConfigError(f'model: segmentation_models_pytorch cannot build {names}: {error}') from None


def _encoder_of(build: Any, options: Mapping[str, Any], **changes: Any) -> nn.Module:
    return build(**options, **changes).encoder


def _checked_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the head, with its type."""
    head = {'type': 'SMPHead', **config}
    if head['type'] not in ('SMPHead', 'mmseg.SMPHead', SMPHead):
        raise ConfigError(f'model.decode_head.type={head["type"]!r}: SMPSegmentor has a SMPHead')
    for name in _SETTLED:
        if name in head:
            raise ConfigError(
                f'model.decode_head.{name}={head[name]!r}: the network settles it; leave it out, and set arguments of '
                'the library in model.network_cfg'
            )
    if head.get('num_classes') is None:
        raise ConfigError('model.decode_head.num_classes is None: the number of classes is due')
    return head


def _check_names(arch: str, encoder_name: str, options: Mapping[str, Any]) -> None:
    """Finds what smp does not know; its own encoders take any argument and ignore it."""
    smp = import_extra('segmentation_models_pytorch')
    known = smp.MODEL_ARCHITECTURES_MAPPING
    if str(arch).lower() not in known:
        raise ConfigError(f'model.arch={arch!r}: {_near(str(arch).lower(), known)}')
    if arch.lower() in _UNFIT:
        raise ConfigError(f'model.arch={arch!r} cannot be used here: {_UNFIT[arch.lower()]}')
    own = encoder_name in smp.encoders.encoders
    if not own and not encoder_name.startswith('tu-'):
        raise ConfigError(
            f'model.encoder_name={encoder_name!r}: {_near(encoder_name, smp.encoders.encoders)}, or "tu-" and the name '
            'of a network of timm'
        )
    if ':' in encoder_name:  # timm would read it from the hub, or from a folder
        raise ConfigError(f'model.encoder_name={encoder_name!r}: the name of a network that timm itself has is due')
    arguments = inspect.signature(known[arch.lower()].__init__).parameters
    for name in options:
        if name in _SET_ELSEWHERE:
            raise ConfigError(f'model.network_cfg.{name}: set by {_SET_ELSEWHERE[name]}')
        if name not in arguments and own:
            fitting = [argument for argument in arguments if argument not in (*_SET_ELSEWHERE, 'self', 'kwargs')]
            raise ConfigError(f'model.network_cfg.{name}: {arch} has no such argument; {_near(name, fitting)}')


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f'did you mean {near[0]!r}?' if near else f'known are {", ".join(known)}'
