"""Checks of families of encoders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from sage_kit.components import FamilySpec
from sage_kit.testing import toy
from sage_kit.testing.exercises import PLAYS
from sage_kit.testing.family_models import LAYERS, LONGEST, checkpoint_of, tiny_model, vocabulary
from sage_kit.testing.registry import CheckFailure, NotApplicable, check, require
from sage_kit.testing.subject import Subject
from sage_kit.testing.surroundings import watched, workspace

TOLERANCE = 1e-7
"""Largest difference of two outputs in float64, relative to the largest: rounding is far below it [1]."""

ROWS = 5


@check("family")
def family_is_declared(subject: Subject) -> None:
    """Each model type is known to transformers, and each path leads to a module of its sequence classifier.

    To fix: print ``AutoModelForSequenceClassification.from_config(config)`` and copy the paths from there; say in
    `example` what else a small configuration needs.
    """
    spec = _spec(subject)
    for model_type in spec.model_types:
        try:
            model = tiny_model(spec, model_type)
        except Exception as error:
            raise CheckFailure(f"no small model of type {model_type!r} can be made: {error}") from error
        head = (spec.head.dropout, spec.head.first_dropout, *spec.head.modules)
        for path in (spec.embeddings, spec.blocks, spec.final_norm, spec.relative_positions, *head):
            require(not path or _has(model, path), f"a model of type {model_type!r} has no module {path!r}")
        count = len(model.get_submodule(spec.blocks))
        require(
            spec.one_block or count == LAYERS,
            f"{spec.blocks!r} holds {count} blocks in a model of type {model_type!r} with {LAYERS} layers",
        )
        others = [name for name, _ in model.named_parameters() if not _belongs(spec, model, name)]
        require(not others, f"no path leads to the parameter {others[0] if others else ''!r} of type {model_type!r}")


@check("family")
def family_equals_the_model(subject: Subject) -> None:
    """In float64, the upper layers on the input layers' output give the stock model's logits, wherever the two part.

    To fix: compare with the model's forward pass: projection of the embeddings, masks, positions, the norm behind the
    last block, pooling and order of the head's layers; a block that is not built as BERT's needs `own_blocks`.
    """
    for model in _models(subject):
        ids, types, mask = _batch(model)
        for given in (None, mask):
            expected = _whole(subject, model, ids, types, given)
            require(float(expected.std(0).max()) > 0, "the model's logits do not depend on its input")
            for bypass in ("embeddings", 1, 2):
                _require_close(_split(model, bypass, ids, types, given), expected, f"with bypass {bypass}", model)


@check("family")
def family_examples_stand_alone(subject: Subject) -> None:
    """An example's logits do not depend on what it is batched with.

    To fix: let no token attend to padding, and pool over real tokens only; `mask` is True at these.
    """
    for model in _models(subject):
        ids, types, mask = _batch(model)
        together = _split(model, "embeddings", ids, types, mask)
        for row, count in enumerate(mask.sum(1).tolist()):
            alone = _split(model, "embeddings", ids[row : row + 1, :count], types[row : row + 1, :count], None)
            _require_close(alone, together[row : row + 1], "of an example alone and in a batch", model)


@check("family")
def family_embeds_at_places(subject: Subject) -> None:
    """Embeddings that are asked for a token at a place give what they give it there in a text.

    To fix: let the module of the embeddings take `position_ids` where it adds positions, and say in
    `positions_from_padding` whether these count from the padding's id.
    """
    import torch

    from sage_kit.models.split import InputLayers

    for model in _models(subject):
        ids, types, _ = _batch(model)
        ids, types = ids[:1], types[:1]  # the longest one has no padding
        embeddings = model.get_submodule(_spec(subject).embeddings)
        if hasattr(embeddings, "padding_idx"):
            # MPNet's count from 1, its padding's id, whatever the configuration says: the toy tokenizer's is 0
            embeddings.padding_idx = model.config.pad_token_id
        order = torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(4))
        input_layers = InputLayers(model)
        with torch.no_grad():
            found = input_layers.alone(ids[:, order], types[:, order], order[None])
            expected = input_layers.alone(ids, types)[:, order]
        _require_close(found, expected, "of the embeddings at given places", model)


@check("family")
def family_projects(subject: Subject) -> None:
    """The queries, keys and values of the last block have the shape that the relations loss needs.

    To fix: let `project` return a tensor of shape (batch, tokens, 3, dim), with the heads side by side.
    """
    import torch

    from sage_kit.models.split import split_model

    for model in _models(subject):
        input_layers, upper = split_model(model, "embeddings")
        states = input_layers(*_batch(model)[:2], None)
        with torch.no_grad():
            output = upper(states, None, hidden=True, projections=(upper.n_blocks,))
        found, shape = output.projections[0], (*states.shape[:2], 3, upper.dim)
        require(found is not None and tuple(found.shape) == shape, f"its projections are not of shape {shape}")
        require(len(output.hidden) == upper.n_blocks, f"it has {len(output.hidden)} hidden states")
        with torch.no_grad():
            again = upper.project(upper.n_blocks, output.hidden[-2])
        _require_close(again, found, "projections of the last block, asked for by themselves,", model)


@check("family")
def family_student_reloads(subject: Subject) -> None:
    """A student of all blocks is the teacher; one of fewer learns behind the input layers only, and reloads.

    To fix: name in `shared` what all blocks use, so that it is copied and frozen; make the configuration fit the
    student's blocks in `student_config`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from sage_kit.components import TaskSpec
    from sage_kit.models.checkpoints import load_tokenizer, quiet
    from sage_kit.models.export import export_student
    from sage_kit.models.split import split_model
    from sage_kit.models.student import build_student

    task = TaskSpec(name="toy", summary="toy", text_columns=("text",), labels=("a", "b", "c"))
    for teacher in _models(subject):
        ids, types, mask = _batch(teacher)
        twin = build_student(teacher, bypass="embeddings", layers=LAYERS).double()
        found = _whole(subject, twin, ids, types, mask)
        _require_close(found, _whole(subject, teacher, ids, types, mask), "of a student of all blocks", teacher)
        student = build_student(teacher, bypass="embeddings", layers=2).double()
        input_layers, upper = split_model(student, "embeddings")
        frozen = {name: value.clone() for name, value in input_layers.state_dict().items()}
        upper(input_layers(ids, types, mask), mask).logits.square().sum().backward()
        lacking = [name for name, value in upper.named_parameters() if value.grad is None]
        require(not lacking, f"{lacking[0] if lacking else ''!r} gets no gradient")
        with torch.no_grad():
            for value in upper.parameters():
                value.sub_(0.01 * cast(torch.Tensor, value.grad))
        require(
            all(torch.equal(frozen[name], value) for name, value in input_layers.state_dict().items()),
            "training the upper layers changes the input layers",
        )
        expected = _whole(subject, student, ids, types, mask).float()
        with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder, quiet():
            export_student(student, load_tokenizer(toy.config().teacher), Path(folder), task)
            loaded = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
            found = _whole(subject, loaded, ids, types, mask)
        require(loaded.config.num_hidden_layers == 2, "the exported student has another number of layers")
        require(torch.allclose(found, expected, rtol=1e-3, atol=1e-4), "the exported student computes something else")


@check("family")
def family_masked_lm(subject: Subject) -> None:
    """In float64, blocks and language head on the input layers' output give the stock masked language model's logits.

    To fix: name in `masked_lm` the modules that make logits from final states, in their order, or nothing.
    """
    import torch

    from sage_kit.models.encoder_parts import language_head
    from sage_kit.models.split import InputLayers

    spec = _spec(subject)
    if not spec.masked_lm:
        raise NotApplicable("it says that it has no masked language model")
    for model in _models(subject, "MaskedLM"):
        head = language_head(model)
        require(head, f"a masked language model of type {model.config.model_type!r} lacks a module of {spec.masked_lm}")
        ids, types, mask = _batch(model)
        with torch.no_grad():
            states = InputLayers(model, LAYERS)(ids, types, mask)
            for module in head:
                states = module(states)
        _require_close(states[mask], _whole(subject, model, ids, types, mask)[mask], "of the language head", model)


@check("family")
def family_runs(subject: Subject) -> None:
    """A run of the real loop with a teacher of each type, which is fine-tuned first, ends well.

    To fix: read the message; it is what a run would say.
    """
    spec = _spec(subject)
    subject.need_packages()
    for model_type in spec.model_types:
        with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder:
            teacher = checkpoint_of(tiny_model(spec, model_type).base_model, Path(folder) / "teacher")
            settings = subject.config(teacher=str(teacher), teacher_epochs=1, rounds=2)
            summary = toy.run_loop(settings, subject.plugins)
        require(len(summary["rounds"]) == 2, f"the run stopped early: {summary['stopped']}")
        require(summary["rounds"][1]["synthetic"] > 0, "round two has no synthetic examples")


def _spec(subject: Subject) -> FamilySpec:
    return cast(FamilySpec, subject.spec)


def _models(subject: Subject, head: str = "SequenceClassification") -> Iterator[Any]:
    """A tiny model of each type, in float64."""
    subject.need_packages()
    subject.plugins.use()
    for model_type in _spec(subject).model_types:
        yield tiny_model(_spec(subject), model_type, head=head).double()


def _batch(model: Any) -> tuple[Any, Any, Any]:
    """Random ids, token types and mask, of several lengths."""
    import torch

    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([LONGEST - 12, 3, 7, 12, LONGEST - 13])[:ROWS]
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(5, vocabulary(), mask.shape, generator=generator) * mask
    return ids, (torch.arange(mask.shape[1]) >= lengths[:, None] // 2).long() * mask, mask


def _whole(subject: Subject, model: Any, ids: Any, types: Any, mask: Any) -> Any:
    """The stock model's logits."""
    import torch

    from sage_kit.models.checkpoints import quiet

    given = {"input_ids": ids}
    if mask is not None:
        given["attention_mask"] = mask.long()
    if _spec(subject).uses_token_types(model.config):
        given["token_type_ids"] = types
    with torch.no_grad(), quiet():  # it would warn of padding without a mask
        return model(**given).logits


def _split(model: Any, bypass: Any, ids: Any, types: Any, mask: Any) -> Any:
    """The logits of its upper layers on its input layers' output."""
    import torch

    from sage_kit.models.split import split_model

    input_layers, upper = split_model(model, bypass)
    with torch.no_grad():
        return upper(input_layers(ids, types, mask), mask).logits


def _require_close(found: Any, expected: Any, what: str, model: Any) -> None:
    shapes = tuple(found.shape), tuple(expected.shape)
    require(shapes[0] == shapes[1], f"outputs {what} have shape {shapes[0]} instead of {shapes[1]}")
    apart = ((found - expected).abs().max() / expected.abs().max()).item()
    require(
        apart <= TOLERANCE,
        f"outputs {what} differ by {apart:.1e} of the largest, for model type {model.config.model_type!r}",
    )


def _has(model: Any, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _belongs(spec: FamilySpec, model: Any, parameter: str) -> bool:
    """Whether a path of the family leads to a parameter."""
    paths = (spec.embeddings, spec.blocks, spec.projection, spec.final_norm, *spec.shared)
    relative = (f"{spec.relative_positions}.relative_attention_bias",) if spec.relative_positions else ()
    return spec.in_head(parameter) or parameter.startswith(tuple(f"{path}." for path in (*paths, *relative) if path))


def _play(subject: Subject) -> None:
    models = list(_models(subject))
    with workspace(), watched(subject.effects, "its code"):
        for model in models:
            ids, types, mask = _batch(model)
            _split(model, 1, ids, types, mask)


PLAYS["family"] = _play
