from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data.splits import Split, TaskData
from sage_kit.data.tokens import tokenize
from sage_kit.errors import CompatibilityError, ModelError
from sage_kit.models.checkpoints import load_tokenizer
from sage_kit.models.task_heads import label_order
from sage_kit.models.teacher import load_teacher, tokenizer_fingerprint
from sage_kit.storage.cache import Cache

CPU = torch.device("cpu")
SPEC = TaskSpec(name="toy", summary="", text_columns=("text",), labels=("blame", "praise"))
NUMBER = TaskSpec(name="number", summary="", text_columns=("text",))
THREE = TaskSpec(name="three", summary="", text_columns=("text",), labels=("entailment", "neutral", "contra-diction"))


def make_split(name, n, seed, labels=None):
    rows = tiny.toy_task_rows(n, seed)
    return Split(name, [row["text"] for row in rows], None, np.array([row["label"] for row in rows]))


def make_data(spec=SPEC, n=400):
    train = make_split("train", n, 0)
    if spec.is_regression:
        train = dataclasses.replace(train, labels=train.labels.astype(np.float32) * 2 - 1)
    return TaskData(spec, train, make_split("dev", 20, 1), {"validation": make_split("validation", 200, 2)})


class Load:
    """`load_teacher` with a cache of its own, keeping what it announced and the steps it reported."""

    def __init__(self, directory):
        self.directory = directory
        self.said: list[str] = []
        self.steps: list[tuple] = []

    def __call__(self, teacher, data=None, **settings):
        self.said.clear()
        self.steps.clear()
        config = load_config({"teacher": str(teacher), "max_length": 32, "device": "cpu", **settings})
        cache = Cache(self.directory, self.said.append, self.said.append)
        on_step = lambda done, total, loss: self.steps.append((done, total, loss))  # noqa: E731
        return load_teacher(config, data or make_data(), cache, CPU, self.said.append, on_step)


@pytest.fixture
def load(tmp_path):
    return Load(tmp_path / "cache")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Tiny checkpoints of two blocks without a head, by family."""
    directory = tmp_path_factory.mktemp("two-blocks")
    names = ("bert", "roberta", "distilbert", "mpnet")
    return {name: tiny.make_checkpoint(directory / name, name, layers=2) for name in names}


QUICK = {"teacher_epochs": 1, "teacher_learning_rate": 1e-3}
SMALL = make_data(n=24)


def logits(teacher, split):
    ids, types, mask = tokenize(split, teacher.tokenizer, 32).pad(np.arange(len(split)))
    types = {"token_type_ids": types} if "token_type_ids" in teacher.tokenizer.model_input_names else {}
    with torch.no_grad():
        return teacher.model(ids, attention_mask=mask.long(), **types).logits


# ---- a trained head


def test_trained_teacher_is_taken_as_it_is(load, tmp_path):
    path = tiny.make_checkpoint(tmp_path / "m", labels=2)
    teacher = load(path)
    assert not teacher.finetuned
    assert not load.steps
    assert not load.said
    original = tiny.make_model(labels=2).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in teacher.model.state_dict().items())
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert teacher.model.config.id2label == {0: "blame", 1: "praise"}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
def test_outputs_are_put_into_the_tasks_order(load, tmp_path, family):
    names = ["CONTRA_DICTION", "Entailment", "neutral"]
    path = tiny.make_checkpoint(tmp_path / "m", family, labels=3, label_names=names)
    data = make_data(THREE)
    teacher = load(path, data)
    assert load.said == [
        f"teacher '{path}': its outputs (CONTRA_DICTION, Entailment, neutral) are put into the task's order "
        "(entailment, neutral, contra-diction)"
    ]
    original = dataclasses.replace(teacher, model=tiny.make_model(family, labels=3))
    torch.testing.assert_close(logits(teacher, data.dev), logits(original, data.dev)[:, [1, 2, 0]])
    assert teacher.model.config.id2label == dict(enumerate(THREE.labels))


def test_names_that_are_in_order_already(load, tmp_path):
    load(tiny.make_checkpoint(tmp_path / "m", labels=2, label_names=["BLAME", "Praise"]))
    assert not load.said


@pytest.mark.parametrize("names", [["CONTRA_DICTION", "Entailment", "neutral"], ()])
@pytest.mark.parametrize(
    "meaning", [["neutral", "contra-diction", "entailment"], ["Neutral", "contradiction", "entailment"]]
)
def test_the_setting_says_what_the_outputs_mean_whatever_their_names(load, tmp_path, names, meaning):
    path = tiny.make_checkpoint(tmp_path / "m", labels=3, label_names=names)
    data = make_data(THREE)
    teacher = load(path, data, teacher_labels=meaning)
    assert load.said == [f"teacher '{path}': its outputs mean {', '.join(meaning)}, as teacher_labels says"]
    original = dataclasses.replace(teacher, model=tiny.make_model(labels=3))
    torch.testing.assert_close(logits(teacher, data.dev), logits(original, data.dev)[:, [2, 0, 1]])
    assert teacher.outputs == (2, 0, 1)
    assert teacher.model.config.id2label == dict(enumerate(THREE.labels))
    assert teacher.fingerprint != load(path, data).fingerprint


@pytest.mark.parametrize("meaning", [["entailment"], ["entailment", "neutral", "neutral"], ["yes", "no", "maybe"]])
def test_the_setting_must_name_each_class_once(load, tmp_path, meaning):
    path = tiny.make_checkpoint(tmp_path / "m", labels=3)
    with pytest.raises(CompatibilityError, match=r"teacher_labels is .*, but must name each class of task 'three' "):
        load(path, make_data(THREE), teacher_labels=meaning)


def test_the_setting_where_there_is_nothing_to_name(load, tmp_path, checkpoints):
    with pytest.raises(CompatibilityError, match=r"has none and is fine-tuned on the task: leave it empty"):
        load(checkpoints["bert"], SMALL, teacher_labels=["blame", "praise"])
    path = tiny.make_checkpoint(tmp_path / "m", labels=1)
    with pytest.raises(CompatibilityError, match=r"the labels of task 'number' are numbers: leave it empty"):
        load(path, make_data(NUMBER), teacher_labels=["blame", "praise"])


def test_other_names_are_announced(load, tmp_path):
    path = tiny.make_checkpoint(tmp_path / "m", labels=2, label_names=["ham", "spam"])
    load(path)
    assert load.said == [
        f"teacher '{path}' calls its outputs ham, spam; they are taken to mean blame, praise, in this order"
    ]


@pytest.mark.parametrize(
    ("names", "labels", "order"),
    [
        (["b", "A"], ("a", "b"), [1, 0]),
        (["Not Duplicate", "duplicate"], ("not_duplicate", "duplicate"), [0, 1]),
        (["LABEL_0", "LABEL_1"], ("a", "b"), None),
        (["+1", "-1"], ("-1", "+1"), None),
        (["a", "b", "c"], ("a", "b", "d"), None),
    ],
)
def test_label_order(names, labels, order):
    assert label_order(names, labels) == order


@pytest.mark.parametrize(
    ("labels", "spec", "message"),
    [
        (3, SPEC, r"trained head of 3 outputs \(LABEL_0, LABEL_1, LABEL_2\), but task 'toy' needs 2 \(blame, praise\)"),
        (2, NUMBER, r"trained head of 2 outputs .* needs 1 \(a number\)"),
        (1, SPEC, r"trained head of 1 outputs .* needs 2"),
    ],
)
def test_trained_head_must_fit_the_task(load, tmp_path, labels, spec, message):
    path = tiny.make_checkpoint(tmp_path / "m", labels=labels)
    with pytest.raises(ModelError, match=message):
        load(path, make_data(spec))


def test_trained_regressor(load, tmp_path):
    teacher = load(tiny.make_checkpoint(tmp_path / "m", labels=1), make_data(NUMBER))
    assert not teacher.finetuned
    assert teacher.model.config.problem_type == "regression"


def test_multi_label_head_is_refused(load, tmp_path):
    path = tiny.make_checkpoint(tmp_path / "m", labels=2)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    with pytest.raises(ModelError, match="several labels at once"):
        load(path)


# ---- fine-tuning


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
def test_teacher_without_a_head_learns_the_task(load, checkpoints, family):
    data = make_data()
    teacher = load(checkpoints[family], data, **tiny.TOY_TRAINING)
    assert teacher.finetuned
    assert load.said == [
        f"teacher '{checkpoints[family]}' has no trained head for task 'toy': fine-tuning it on 400 examples, 4 epochs"
    ]
    held_out = data.validation["validation"]
    accuracy = (logits(teacher, held_out).argmax(1).numpy() == held_out.labels).mean()
    assert accuracy > 0.9
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert [step[0] for step in load.steps] == list(range(1, load.steps[0][1] + 1))
    assert all(isinstance(loss, torch.Tensor) and loss.ndim == 0 and not loss.requires_grad for *_, loss in load.steps)


def test_regression_teacher_learns_the_task(load, checkpoints):
    data = make_data(NUMBER)
    teacher = load(checkpoints["bert"], data, **tiny.TOY_TRAINING)
    assert teacher.model.config.num_labels == 1
    held_out = data.validation["validation"]
    predicted = logits(teacher, held_out)[:, 0].numpy()
    assert np.corrcoef(predicted, held_out.labels)[0, 1] > 0.8


def test_second_load_comes_from_the_cache(load, checkpoints):
    first = load(checkpoints["bert"], SMALL, **QUICK)
    assert load.steps
    second = load(checkpoints["bert"], SMALL, **QUICK, seed=7, student_layers=1, temperature=4.0)
    assert not load.steps
    assert [text for text in load.said if "found in the cache" in text]
    assert second.finetuned
    assert second.fingerprint == first.fingerprint
    state = first.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.model.state_dict().items())


def test_fine_tuning_is_repeatable_and_leaves_the_random_state_alone(checkpoints, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = Load(tmp_path / "a")(checkpoints["roberta"], SMALL, **QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = Load(tmp_path / "b")(checkpoints["roberta"], SMALL, **QUICK)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher_epochs": 2}, {"teacher_learning_rate": 2e-3}, {"teacher_seed": 1}, {"batch_size": 8},
        {"batch_tokens": 64}, {"max_length": 8}, {"precision": "bf16"},
    ],
    ids=str,
)  # fmt: skip
def test_what_shapes_the_teacher_makes_another(load, checkpoints, settings):
    first = load(checkpoints["bert"], SMALL, **QUICK)
    other = load(checkpoints["bert"], SMALL, **{**QUICK, **settings})
    assert load.steps
    assert other.fingerprint != first.fingerprint


def test_other_data_makes_another_teacher(load, checkpoints):
    load(checkpoints["bert"], SMALL, **QUICK)
    texts = dataclasses.replace(SMALL.train, texts=[*SMALL.train.texts[:-1], "quite another film"])
    load(checkpoints["bert"], dataclasses.replace(SMALL, train=texts), **QUICK)
    assert load.steps
    labels = dataclasses.replace(SMALL.train, labels=1 - SMALL.train.labels)
    load(checkpoints["bert"], dataclasses.replace(SMALL, train=labels), **QUICK)
    assert load.steps
    # dev and validation take no part in it
    load(checkpoints["bert"], dataclasses.replace(SMALL, dev=make_split("dev", 8, 9), validation={}), **QUICK)
    assert not load.steps


def test_other_weights_make_another_teacher(load, checkpoints, tmp_path):
    load(checkpoints["bert"], SMALL, **QUICK)
    load(tiny.make_checkpoint(tmp_path / "m", layers=2, seed=1), SMALL, **QUICK)
    assert load.steps


def test_another_configuration_makes_another_teacher(load, checkpoints, tmp_path):
    load(checkpoints["bert"], SMALL, **QUICK)
    path = shutil.copytree(checkpoints["bert"], tmp_path / "m")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.5}))
    load(path, SMALL, **QUICK)
    assert load.steps


def test_another_tokenizer_makes_another_teacher(load, checkpoints, tmp_path):
    """Even one that gives the training texts the same ids: the cached teacher is saved with its tokenizer."""
    load(checkpoints["bert"], SMALL, **QUICK)
    path = shutil.copytree(checkpoints["bert"], tmp_path / "m")
    rules = json.loads((path / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    used = {word.strip(".!") for text in SMALL.train.texts for word in text.split()}
    one, two = [word for word in tiny.WORDS if word not in used][:2]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (path / "tokenizer.json").write_text(json.dumps(rules))
    load(path, SMALL, **QUICK)
    assert load.steps


def test_recipe(load, checkpoints, monkeypatch):
    """Fused AdamW, no decay of vectors, clipped gradients, a learning rate that rises over 6 % and falls to zero."""
    rates, norms, groups = [], [], []

    class Recorder(torch.optim.AdamW):
        def __init__(self, params, **kwargs):
            super().__init__(params, **kwargs)
            assert kwargs["fused"]
            groups.extend(self.param_groups)

        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, norm: (norms.append(norm), clip(p, norm)))
    load(checkpoints["bert"], make_data(n=200), teacher_epochs=5, teacher_learning_rate=1e-3, batch_size=20)
    assert len(rates) == len(load.steps) == 50
    # 3 steps up, the top held at step 4, 47 steps down
    expected = [1 / 3, 2 / 3, 1, *(1 - step / 47 for step in range(47))]
    np.testing.assert_allclose(rates, np.array(expected) * 1e-3, rtol=1e-6)
    assert norms == [1.0] * 50
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    assert all(parameter.ndim == 1 for parameter in groups[1]["params"])


def test_the_path_does_not_matter(load, checkpoints, tmp_path):
    load(checkpoints["bert"], SMALL, **QUICK)
    load(shutil.copytree(checkpoints["bert"], tmp_path / "moved"), SMALL, **QUICK)
    assert not load.steps


def test_damaged_cache_is_rebuilt_to_the_same(load, checkpoints):
    first = load(checkpoints["bert"], SMALL, **QUICK)
    (weights,) = load.directory.glob("teacher/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-64])
    second = load(checkpoints["bert"], SMALL, **QUICK)
    assert load.steps
    assert [text for text in load.said if "damaged" in text]
    assert second.fingerprint == first.fingerprint


def test_cache_holds_a_plain_checkpoint(load, checkpoints):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    teacher = load(checkpoints["distilbert"], SMALL, **QUICK)
    (directory,) = (path.parent for path in load.directory.glob("teacher/*/config.json"))
    model, info = AutoModelForSequenceClassification.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.config.id2label == {0: "blame", 1: "praise"}
    assert AutoTokenizer.from_pretrained(directory).get_vocab() == teacher.tokenizer.get_vocab()
    assert load(directory, SMALL).finetuned is False


def test_partial_head_is_kept_as_far_as_it_goes(load, tmp_path):
    """A multiple-choice BERT brings a trained pooler and an output layer of another meaning."""
    import transformers

    torch.manual_seed(0)
    model = transformers.BertForMultipleChoice(tiny.make_config("bert", layers=2))
    model.save_pretrained(tmp_path / "m")
    tiny.make_tokenizer().save_pretrained(tmp_path / "m")
    teacher = load(tmp_path / "m", SMALL, teacher_epochs=1, teacher_learning_rate=1e-9)
    assert teacher.finetuned
    state = teacher.model.state_dict()
    theirs = model.state_dict()
    assert state["classifier.weight"].shape == (2, 32)
    torch.testing.assert_close(state["bert.pooler.dense.weight"], theirs["bert.pooler.dense.weight"])
    torch.testing.assert_close(
        state["bert.encoder.layer.1.output.dense.weight"], theirs["bert.encoder.layer.1.output.dense.weight"]
    )


def test_new_head_depends_on_the_seed(checkpoints, tmp_path):
    heads = []
    for seed in (0, 1, 0):
        load = Load(tmp_path / str(len(heads)))
        teacher = load(checkpoints["bert"], SMALL, teacher_epochs=1, teacher_learning_rate=1e-9, teacher_seed=seed)
        heads.append(teacher.model.classifier.weight)
    assert torch.equal(heads[0], heads[2])
    assert not torch.allclose(heads[0], heads[1])


def test_divergence_is_an_error_and_leaves_no_cache(load, checkpoints):
    with pytest.raises(ModelError, match=r"diverged .* lower teacher_learning_rate, now 1e\+15"):
        load(checkpoints["bert"], SMALL, teacher_learning_rate=1e15)
    assert not list(load.directory.glob("teacher/**/*.safetensors"))


def test_fp16_needs_a_gpu(load, checkpoints):
    with pytest.raises(CompatibilityError, match="fp16"):
        load(checkpoints["bert"], SMALL, precision="fp16")


def test_nothing_is_printed(load, checkpoints, capfd):
    load(checkpoints["bert"], SMALL, **QUICK)
    assert capfd.readouterr() == ("", "")


# ---- teacher and tokenizer


def save_tokenizer(directory, edit, family="bert"):
    tokenizer = tiny.make_tokenizer(family)
    edit(tokenizer)
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text(tiny.make_config(family).to_json_string())
    return str(directory)


def test_tokenizer_setting_overrides_the_teachers_own(load, tmp_path):
    path = tiny.make_checkpoint(tmp_path / "m", labels=2)
    for file in path.glob("tokenizer*"):
        file.rename(tmp_path / file.name)
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    with pytest.raises(ModelError, match="has no tokenizer"):
        load(path)
    assert len(load(path, tokenizer=str(tmp_path)).tokenizer) == len(tiny.make_tokenizer())


def test_tokenizer_with_more_entries_than_embeddings(load, tmp_path, tiny_bert):
    other = save_tokenizer(tmp_path, lambda tokenizer: tokenizer.add_tokens(["brandnew"]))
    with pytest.raises(ModelError, match=r"has ids up to 237, but model .* embeds only 237: .* set tokenizer"):
        load(tiny_bert, tokenizer=other)


def test_tokenizer_without_padding(load, tmp_path, tiny_bert):
    other = save_tokenizer(tmp_path, lambda tokenizer: setattr(tokenizer, "pad_token", None))
    with pytest.raises(ModelError, match="has no padding token"):
        load(tiny_bert, tokenizer=other)


def test_roberta_with_another_padding_id(load, tmp_path, tiny_roberta):
    other = save_tokenizer(tmp_path, lambda tokenizer: setattr(tokenizer, "pad_token", "</s>"), "roberta")
    with pytest.raises(ModelError, match=r"pads with id 2, but model .* counts its positions by padding id 1"):
        load(tiny_roberta, tokenizer=other)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
def test_max_length_beyond_the_positions(load, tmp_path, family):
    path = tiny.make_checkpoint(tmp_path / "m", family, labels=2)
    load(path, max_length=tiny.MAX_POSITIONS)
    with pytest.raises(CompatibilityError, match=r"max_length is 65, but model .* takes at most 64 tokens"):
        load(path, max_length=tiny.MAX_POSITIONS + 1)


def test_token_types_that_the_model_does_not_take(load, tmp_path):
    """A BERT tokenizer beside a DistilBERT, as many checkpoints have it."""
    path = tiny.make_checkpoint(tmp_path / "m", "distilbert", labels=2)
    tiny.make_tokenizer("bert").save_pretrained(path)
    teacher = load(path)
    assert teacher.tokenizer.model_input_names == ["input_ids", "attention_mask"]
    teacher.tokenizer.save_pretrained(tmp_path / "again")
    shutil.copy(path / "config.json", tmp_path / "again")
    assert "token_type_ids" not in load_tokenizer(str(tmp_path / "again"))("good", "bad")


# ---- fingerprints


def test_fingerprint_follows_weights_and_configuration(load, tmp_path):
    path = tiny.make_checkpoint(tmp_path / "m", labels=2)
    first = load(path).fingerprint
    assert load(shutil.copytree(path, tmp_path / "copy")).fingerprint == first
    assert load(tiny.make_checkpoint(tmp_path / "other", labels=2, seed=1)).fingerprint != first
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert load(path).fingerprint != first


def test_tokenizer_fingerprint_ignores_its_last_call():
    tokenizer = tiny.make_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["good film"], truncation=True, max_length=3, padding="max_length")
    assert tokenizer.backend_tokenizer.truncation is not None
    assert tokenizer_fingerprint(tokenizer) == before
    assert tokenizer_fingerprint(tiny.make_tokenizer("roberta")) != before


def test_slow_tokenizer_has_a_fingerprint(tmp_path):
    from transformers import BertJapaneseTokenizer

    def make(*words):
        Path(tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        return BertJapaneseTokenizer(
            str(tmp_path / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="wordpiece"
        )

    assert not make("a").is_fast
    assert tokenizer_fingerprint(make("a")) == tokenizer_fingerprint(make("a"))
    assert tokenizer_fingerprint(make("a")) != tokenizer_fingerprint(make("b"))
