"""Everything a run needs before its first step: data, teacher, vectors, the teacher's outputs, and a new student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage_kit.components import ModelSizes, handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.splits import Split
from sage_kit.data.teacher_report import report_scores, report_teacher
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.families import family_parts
from sage_kit.models.language import load_language
from sage_kit.models.loss_inputs import loss_inputs
from sage_kit.models.narrow import Shape, narrow_student, student_shape
from sage_kit.models.readers import Ensemble, Reader
from sage_kit.models.ready_student import ReadyStudent, load_ready_student
from sage_kit.models.split import UpperLayers, split_model
from sage_kit.models.student import build_student, layer_map
from sage_kit.models.teacher import Teacher, fit_tokenizer, sentence_settings
from sage_kit.models.vectors import Pooled, VectorStore
from sage_kit.models.vocabulary import TeacherVocabulary
from sage_kit.recipe import Recipe
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.synthesis.maps import check_distinct
from sage_kit.training.further_models import FurtherModels, check_further
from sage_kit.training.preparation_steps import PreparationSteps
from sage_kit.training.prepared import Prepared, PreparedSplit, PreparedVectors

if TYPE_CHECKING:
    from accelerate import Accelerator

FINE_TUNED = "of the teacher fine-tuned on the task"
TRAINED = "of the checkpoint, whose head is trained"

PRE_TRAINED = "of the checkpoint as it is, not fine-tuned on the task"


def prepare(recipe: Recipe, accelerator: Accelerator, costs: Costs) -> Prepared:
    """Load the data, find or make the teacher, find or compute what is cached, and build the student.

    Under several processes the first fills the caches while the others wait.

    Raises
    ------
    SageError
        Of the kind that fits what is wrong with data, teacher, tokenizer, sizes or directories.
    """
    config = recipe.config
    work = PreparationSteps(config, recipe.plugins, accelerator, costs)
    data, cache, device = work.load_data(), work.cache, accelerator.device
    recipe.check_labels(len(data.train), data.train.unlabelled)
    check_further(recipe, data.spec)
    teacher = work.load_teacher(data)
    others = [(name, work.load_teacher(data, name)) for name in config.other_teachers]
    precision = work.precision

    first = Reader.of_teacher(teacher, config.teacher, config.bypass, device)
    teachers = Ensemble.of(
        first, [Reader.of_teacher(one, name, "embeddings", device) for name, one in others], config.teacher_weights
    )
    model, teacher_upper, student = teacher.model, first.upper, None
    ready = load_ready_student(config, data.spec, first, device, work.announce) if config.student else None
    shape = None if ready else student_shape(config, model.config)
    if ready is not None:
        student = ready.model
    elif shape is None:
        student = build_student(
            model, bypass=config.bypass, layers=config.student_layers, init=config.student_init, seed=config.seed
        )
    else:  # it is made from states that are not there yet
        layer_map(config.student_init, teacher_upper.n_blocks, config.student_layers)
    handling = handling_of(data.spec)
    sizes = _model_sizes(teacher_upper, ready, shape, config, not handling.spec.has_distributions)
    inputs = loss_inputs(recipe, teacher_upper, sizes, handling, own_input=ready is not None)
    recipe.check_sizes(len(data.train), first.input_layers.dim)
    further = FurtherModels(work, data.spec, teachers, ready)

    def read(split: Split) -> tuple[EncodedSplit, VectorStore]:
        return work.read(split, data.spec, first)

    def taught(split: Split, reading: tuple[EncodedSplit, VectorStore], layers: Sequence[int] = ()) -> PreparedSplit:
        outputs = work.label(split.name, reading[1], first, layers)
        return further.by_all_teachers(split, PreparedSplit(*reading, outputs))

    def prepared(split: Split) -> PreparedSplit:
        return further.by_student(split, taught(split, read(split)))

    def pool(store: VectorStore) -> Pooled:
        if config.map_layer == 0:
            return Pooled(store.pooled, store.key)
        if config.map_layer > teacher_upper.n_blocks:
            raise CompatibilityError(
                f"map_layer is {config.map_layer}, but the teacher has {teacher_upper.n_blocks} blocks behind the "
                "input layers: lower it"
            )
        return work.pool_layer(data.train.name, store, first, config.map_layer)

    train_reading = read(data.train)
    mapped = Pooled(train_reading[1].pooled, train_reading[1].key)
    if recipe.uses_map:
        mapped = pool(train_reading[1])
        # now, and not after the first round
        check_distinct(mapped.vectors, config.n_components)
    dev_reading = read(data.dev)
    dev_outputs = work.label(data.dev.name, dev_reading[1], first, [])
    # before the teacher labels train, which may take long
    report = (
        report_scores(config.teacher, dev_reading[0], dev_outputs.logits)
        if data.spec.is_structured
        else report_teacher(
            config.teacher, data.spec, dev_outputs.logits, dev_reading[0].labels, outputs=teacher.outputs
        )
    )
    for line in report.lines:
        work.announce(line)
    called = repr(config.teacher)
    dev_taught = further.by_all_teachers(data.dev, PreparedSplit(*dev_reading, dev_outputs))
    if others:
        called = f"{called} and {len(others)} more"
        work.tell_of_score(f"teachers {called}", data.dev, dev_taught)
    dev = further.by_student(data.dev, dev_taught)
    anchors = taught(data.train, train_reading, inputs.kept)
    train = further.by_student(data.train, anchors)
    further.check_tokens(recipe, inputs)
    validation = {name: prepared(split) for name, split in data.validation.items()}
    evaluation = None
    mark = [*(one.mark for one in teachers.all), train.store.key, dev.store.key, *train.content]
    if others:
        mark.append(teachers.weights)
    if ready is not None:
        mark.append(ready.reader.mark)
    if data.evaluation is not None:
        evaluation = prepared(data.evaluation)
        mark += [evaluation.store.key, *evaluation.content]
        work.tell_of_score(f"teacher{'s' * bool(others)} {called}", data.evaluation, evaluation)
    content = fingerprint(*mark)
    if shape is not None:
        with work.alone("narrowing"):
            student = narrow_student(config, model, teacher_upper, train.store, shape, device)
    assert student is not None
    return Prepared(
        data=data,
        teacher=teacher,
        input_layers=first.input_layers,
        teacher_upper=teacher_upper,
        student=student,
        train=train,
        mapped=mapped,
        vocabulary=TeacherVocabulary(
            teacher,
            anchors.tokens,
            cache,
            lambda: load_language(
                _of_encoder(config, teacher), teacher.tokenizer, anchors.tokens, cache, device, work.announce
            ),
        ),
        dev=dev,
        validation=validation,
        evaluation=evaluation,
        report=report,
        loss_inputs=inputs,
        content=content,
        cache=cache,
        device=device,
        precision=precision,
        teachers=teachers,
        ready=ready,
        taught=None if ready is None else anchors,
    )


def prepare_vectors(
    config: RunConfig, plugins: Plugins, accelerator: Accelerator, costs: Costs, *, fine_tune: bool
) -> PreparedVectors:
    """Load the data and the teacher, and find or compute the pooled vectors of train and dev; nothing else of a run.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    accelerator : Accelerator
    costs : Costs
    fine_tune : bool
        Whether a teacher without a trained head is fine-tuned first, as in a run. If not, the input layers are taken
        from the checkpoint as it is: fine-tuning moves the embeddings little, and may take hours.

    Raises
    ------
    SageError
        As `prepare` does.
    """
    work = PreparationSteps(config, plugins, accelerator, costs)
    data = work.load_data()
    if fine_tune:
        teacher = work.load_teacher(data)
        tokenizer, mark, prefix = teacher.tokenizer, teacher.fingerprint, teacher.prefix
        input_layers, _ = split_model(teacher.model.to(accelerator.device), config.bypass)
        whose = FINE_TUNED if teacher.finetuned else TRAINED
    else:
        architecture = handling_of(data.spec).spec.architecture
        sentence = sentence_settings(config, architecture)
        folder, prefix = (config.teacher, "") if sentence is None else (sentence.encoder, sentence.prompt)
        checkpoint = load_classifier(folder, architecture, sentence)
        tokenizer = load_tokenizer(config.tokenizer or folder)
        fit_tokenizer(tokenizer, checkpoint, config)
        input_layers, _ = split_model(checkpoint.model.to(accelerator.device), config.bypass)
        # the head may be random: of the input layers alone
        mark = fingerprint("input-layer-2", family_parts(checkpoint.family), dict(input_layers.state_dict()))
        whose = PRE_TRAINED if checkpoint.missing else TRAINED
    key = fingerprint(mark, config.bypass)
    # token states are many times larger, and nobody looks at them here
    train, dev = (
        work.embed(split.name, work.encode(split, data.spec, tokenizer, prefix).tokens, input_layers, key, "pooled")
        for split in (data.train, data.dev)
    )
    return PreparedVectors(train, dev, whose, work.cache)


def _of_encoder(config: RunConfig, teacher: Teacher) -> RunConfig:
    """The settings with the folder in which the teacher's encoder lies, where a folder of several parts is named."""
    if teacher.sentence is None or teacher.sentence.encoder == config.teacher:
        return config
    return config.model_copy(update={"teacher": teacher.sentence.encoder})


def _model_sizes(
    teacher: UpperLayers, ready: ReadyStudent | None, shape: Shape | None, config: RunConfig, regression: bool
) -> ModelSizes:
    """What losses must know of the two models before they are built."""
    blocks, dim, heads = config.student_layers, teacher.dim, teacher.heads
    if ready is not None:
        own = ready.reader.upper
        blocks, dim, heads = own.n_blocks, own.dim, own.heads
    elif shape is not None:
        dim, heads = shape.width, shape.heads
    return ModelSizes(
        teacher_blocks=teacher.n_blocks,
        student_blocks=blocks,
        teacher_dim=teacher.dim,
        student_dim=dim,
        teacher_heads=teacher.heads,
        student_heads=heads,
        n_outputs=teacher.n_outputs,
        regression=regression,
    )
