from __future__ import annotations

import copy

import pytest
import tiny
import torch

from sage_kit.errors import CompatibilityError
from sage_kit.models.families import family_of
from sage_kit.models.split import split_model
from sage_kit.models.student import build_student, layer_map, student_config

FAMILIES = pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "mpnet", "electra", "deberta-v2", "nomic_bert"]
)
IDS = torch.arange(11, 19)[None]


@pytest.mark.parametrize(
    ("init", "teacher", "student", "expected"),
    [
        ("uniform", 6, 3, [0, 2, 4]),
        ("uniform", 12, 6, [0, 2, 4, 6, 8, 10]),
        ("uniform", 12, 4, [0, 3, 6, 9]),
        ("uniform", 5, 3, [0, 1, 3]),
        ("uniform", 4, 4, [0, 1, 2, 3]),
        ("spread", 6, 3, [0, 3, 5]),
        ("spread", 12, 6, [0, 2, 4, 7, 9, 11]),
        ("spread", 4, 4, [0, 1, 2, 3]),
        ("spread", 6, 1, [5]),
        ("last", 6, 2, [4, 5]),
        ([5, 0, 3], 6, 3, [5, 0, 3]),
        ([1, 1], 4, 2, [1, 1]),
        ("scratch", 2, 9, []),
    ],
)
def test_layer_map(init, teacher, student, expected):
    assert layer_map(init, teacher, student) == expected


@pytest.mark.parametrize(
    ("init", "student", "message"),
    [
        ("uniform", 5, "student_layers is 5, but the teacher has 4 blocks behind the input layers"),
        ("last", 5, "set student_init to 'scratch'"),
        ([0, 1, 2, 3, 3], 5, "student_layers is 5"),
        ([0, 4], 2, "names block 4, but the teacher's blocks behind the input layers are numbered 0 to 3"),
        ([0, -1], 2, "names block -1"),
        ([0, 1], 3, "lists 2 blocks, but student_layers is 3"),
    ],
)
def test_layer_map_refuses(init, student, message):
    with pytest.raises(CompatibilityError, match=message):
        layer_map(init, 4, student)


def state(model, path):
    return model.get_submodule(path).state_dict()


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@FAMILIES
@pytest.mark.parametrize(
    ("bypass", "init", "sources"),
    [("embeddings", "uniform", [0, 2]), ("embeddings", "last", [2, 3]), (1, "uniform", [1, 2]), (1, [2, 0], [3, 1])],
)
def test_blocks_and_head_are_the_teachers(family, bypass, init, sources):
    teacher = tiny.make_model(family, labels=3)
    student = build_student(teacher, bypass=bypass, layers=2, init=init)
    paths = family_of(teacher.config)
    front = 0 if bypass == "embeddings" else bypass
    assert student.config.num_hidden_layers == front + 2 == len(student.get_submodule(paths.blocks))
    assert equal(state(student, paths.embeddings), state(teacher, paths.embeddings))
    for index in range(front):
        assert equal(state(student, f"{paths.blocks}.{index}"), state(teacher, f"{paths.blocks}.{index}"))
    for index, source in enumerate(sources):
        mine, theirs = f"{paths.blocks}.{front + index}", f"{paths.blocks}.{source}"
        assert equal(state(student, mine), state(teacher, theirs))
    for path in (paths.head_dense, paths.head_output):
        assert equal(state(student, path), state(teacher, path))


@FAMILIES
@pytest.mark.parametrize("bypass", ["embeddings", 2])
def test_same_depth_gives_the_teacher_itself(family, bypass):
    teacher = tiny.make_model(family)
    student = build_student(teacher, bypass=bypass, layers=4 if bypass == "embeddings" else 2)
    assert torch.equal(student(IDS).logits, teacher(IDS).logits)


def test_a_student_of_albert_applies_the_one_block_fewer_times():
    teacher = tiny.make_model("albert", layers=6, labels=3)
    student = build_student(teacher, bypass="embeddings", layers=2)
    assert student.config.num_hidden_layers == 2
    assert equal(student.state_dict(), teacher.state_dict())
    assert not torch.allclose(student(IDS).logits, teacher(IDS).logits)
    teacher.config.num_hidden_layers = 2
    assert torch.equal(student(IDS).logits, teacher(IDS).logits)
    trainable = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in trainable} == {"encoder", "pooler", "weight", "bias"}
    assert not any("embedding" in name for name in trainable)
    with pytest.raises(CompatibilityError, match=r"all blocks of family 'albert' share .* set bypass to 'embeddings'"):
        build_student(teacher, bypass=1, layers=1)
    scratch = build_student(teacher, bypass="embeddings", layers=9, init="scratch")
    assert (scratch.config.num_hidden_layers, scratch.albert.encoder.config.num_hidden_layers) == (9, 9)


@pytest.mark.parametrize(
    ("bypass", "init", "sources"),
    [("embeddings", "uniform", [0, 2, 4]), (1, "last", [0, 4, 5]), (2, [3, 2], [0, 1, 5, 4])],
)
def test_blocks_of_modernbert_keep_their_kind_of_attention(bypass, init, sources):
    teacher = tiny.make_model("modernbert", layers=6)
    kinds = teacher.config.layer_types
    front = 0 if bypass == "embeddings" else bypass
    student = build_student(teacher, bypass=bypass, layers=len(sources) - front, init=init)
    assert student.config.layer_types == [kinds[source] for source in sources]
    assert teacher.config.layer_types == kinds
    for place, source in enumerate(sources):
        assert student.model.layers[place].attention_type == kinds[source]
        assert equal(state(student, f"model.layers.{place}"), state(teacher, f"model.layers.{source}"))
    for path in ("model.embeddings", "model.final_norm", "head", "classifier"):
        assert equal(state(student, path), state(teacher, path))


@pytest.mark.parametrize(("bypass", "init"), [("embeddings", "last"), ("embeddings", [1, 0]), ("embeddings", [0, 0])])
def test_the_first_block_of_modernbert_stays_the_first(bypass, init):
    with pytest.raises(CompatibilityError, match="ModernBERT's first block alone has no norm before its attention"):
        build_student(tiny.make_model("modernbert"), bypass=bypass, layers=2, init=init)


def test_modernbert_from_scratch_goes_on_with_the_pattern():
    teacher = tiny.make_model("modernbert", layers=4)
    student = build_student(teacher, bypass=1, layers=5, init="scratch")
    assert student.config.layer_types == [*teacher.config.layer_types, *teacher.config.layer_types[:2]]
    assert equal(state(student, "model.layers.0"), state(teacher, "model.layers.0"))


def test_nothing_is_shared_and_the_teacher_is_left_alone():
    teacher = tiny.make_model("bert").requires_grad_(False)
    before, settings = copy.deepcopy(teacher.state_dict()), teacher.config.to_dict()
    student = build_student(teacher, bypass=1, layers=2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert equal(teacher.state_dict(), before)
    assert teacher.config.to_dict() == settings
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_input_layers_is_frozen_and_the_rest_trains(bypass):
    student = build_student(tiny.make_model("bert").requires_grad_(False), bypass=bypass, layers=2)
    trainable = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    input_layers, upper = split_model(student, bypass)
    assert upper.n_blocks == 2
    frozen = {id(parameter) for parameter in input_layers.parameters()}
    assert trainable == {name for name, parameter in student.named_parameters() if id(parameter) not in frozen}


@FAMILIES
def test_scratch_depends_on_the_seed_only(family):
    teacher = tiny.make_model(family)
    paths = family_of(teacher.config)

    def build(seed):
        return build_student(teacher, bypass=1, layers=5, init="scratch", seed=seed)

    before = torch.get_rng_state()
    student = build(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert equal(build(1).state_dict(), student.state_dict())
    other = build(2)
    assert equal(state(student, paths.embeddings), state(teacher, paths.embeddings))
    assert equal(state(student, f"{paths.blocks}.0"), state(teacher, f"{paths.blocks}.0"))
    for path in (f"{paths.blocks}.1", f"{paths.blocks}.5", paths.head_dense, paths.head_output):
        assert not equal(state(student, path), state(other, path))
    assert not torch.equal(state(student, paths.head_dense)["weight"], state(teacher, paths.head_dense)["weight"])


def test_same_seed_whatever_the_global_state():
    teacher = tiny.make_model("bert")
    torch.rand(5)
    before = torch.get_rng_state()
    build_student(teacher, bypass="embeddings", layers=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_too_many_layers_behind_a_cut():
    with pytest.raises(CompatibilityError, match="student_layers is 3, but the teacher has 2 blocks"):
        build_student(tiny.make_model("bert"), bypass=2, layers=3)


def test_cut_through_all_blocks():
    with pytest.raises(CompatibilityError, match="bypass is 4"):
        build_student(tiny.make_model("bert"), bypass=4, layers=1)


def test_six_layers_of_768_count_66_to_67_million():
    from transformers import AutoModelForSequenceClassification, BertConfig

    # the meta device counts without filling memory
    with torch.device("meta"):
        teacher = AutoModelForSequenceClassification.from_config(BertConfig())
        student = build_student(teacher, bypass="embeddings", layers=6)
    assert 66e6 <= sum(parameter.numel() for parameter in student.parameters()) <= 67e6
    assert 109e6 <= sum(parameter.numel() for parameter in teacher.parameters()) <= 110e6


def test_student_config_keeps_all_but_the_depth():
    teacher = tiny.make_config("distilbert", labels=3)
    config = student_config(teacher, bypass=1, layers=2)
    changed = {name for name, value in config.to_dict().items() if value != teacher.to_dict()[name]}
    assert changed == {"n_layers"}
    assert config.n_layers == 3
