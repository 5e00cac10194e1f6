"""Checks of a finished run: whether the same recipe would still give the same result."""

from collections.abc import Callable
from dataclasses import replace

from sparseq import checkpoint
from sparseq.errors import InputError
from sparseq.tasks import Task

from .comparing import load_baseline, predicted
from .fingerprint import Fingerprint, compare, of_data, of_model
from .folder import RunFolder
from .gate import Drop, compared_model
from .given import Given
from .prepare import load_student, load_teacher, read_data, wordnet_fingerprint
from .progress import Reporter
from .recipe import Recipe
from .result import RunResult
from .scoring import load_folder, saved_tokenizer


def finished_before(recipe: Recipe, folder: RunFolder, reporter: Reporter, given: Given | None = None) -> RunResult:
    """The result of a run that has finished in this folder.

    Raises InputError if its data or models have changed, or if its saved model is damaged.
    """
    result = RunResult.from_folder(folder.path)
    try:
        checkpoint.verify(folder.path)
        saved_tokenizer(folder.path)
    except InputError as error:
        raise InputError(
            f"--out {folder.path} holds a finished run whose model is damaged ({error}): remove that folder to run it "
            "again, or give another one"
        ) from error
    task = Task.from_dict(result.task_definition)
    sources: dict[str, Callable[[], Fingerprint]] = {
        "data": lambda: of_data(read_data(recipe, given)),
        "model": lambda: of_model(*load_student(recipe, task)),
    }
    if recipe.uses("kd"):
        sources["teacher"] = lambda: of_model(*load_teacher(recipe, task), "teacher")
    if recipe.augment_copies:
        sources["wordnet"] = lambda: wordnet_fingerprint(recipe)
    reporter.say(f"{folder.path}: finished before, not run again")
    if not result.fingerprint:
        reporter.say("an older version ran it: whether its data and models are still the same is not known")
    else:
        with reporter.phase("comparing data and models"):
            changed, not_compared = compare(recipe, result.fingerprint, sources)
        if changed:
            raise folder.other_run(changed)
        for source, why in not_compared.items():
            reporter.say(f"cannot tell whether the {source} is still the same ({why})")
    folder.tidy()  # in case the run was killed after its last step
    if (name := compared_model(recipe)) is not None:
        drop = _drop(recipe, name, result, folder, reporter, given)
        if drop != result.drop:
            result = replace(result, drop=drop)
            folder.finish(result.as_dict())
    return replace(result, finished_before=True)


def _drop(
    recipe: Recipe, name: str, result: RunResult, folder: RunFolder, reporter: Reporter, given: Given | None
) -> Drop:
    """How far the score of the finished run is below that of its baseline, measured again only with another one.

    The teacher, and a model that is not trained, were found to be unchanged before.
    """
    known = result.drop if result.drop is not None and result.drop.baseline == name else None
    if known is not None and recipe.baseline is None:
        return known.limited(recipe.max_drop)
    data = read_data(recipe, given)
    baseline = load_baseline(recipe, data, reporter, known)
    if baseline is None:
        assert known is not None
        return known.limited(recipe.max_drop)
    logits = predicted(*load_folder(folder.path), recipe, data, reporter, "evaluating the saved model")
    return baseline.drop(data, logits, recipe.max_drop)
