"""The approval of a run before it is published: the run is suspended, people look at its gallery and fill in a form.

A suspended run has no process: it is a line in the server's database and the units in the store. Once the form is
filled in, any worker begins the run again, which finds all of its units and the form, and goes on to publish.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import pandas as pd
import pyarrow as pa
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from pydantic import Field

from datasets.contact_sheet import contact_sheet
from datasets.runs.units import open_unit
from datasets.storage.escaping import for_markdown
from datasets.storage.store import Store, StoreError
from tasks.augment.decisions import Decisions, read_decisions, require_candidates
from tasks.augment.publishing import chosen_candidates, run_rows
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.showing import artifact_key, show_picture, show_place, web_url
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace
from tasks.report.gallery import GalleryInputs, write_gallery

_FOLDER = "report"
#: Of the contact sheet: images a group, and groups.
_A_ROW, _MOST_ROWS = 12, 40


class Approval(RunInput):
    """What a person says of a run that waits to be published."""

    verdict: Literal["approve", "reject"] = Field(
        default="approve", description="approve publishes all that was kept and is not marked bad; reject: nothing."
    )
    decided_by: str = Field(min_length=1, max_length=200, description="Who decides, e.g. Ada Lovelace.")
    marks: str = Field(
        default="",
        description="What the gallery exported: the file's content, or its path or URL as the worker reads it, e.g. "
        "s3://bucket/decisions.json. Empty: nothing is marked.",
    )
    note: str = Field(default="", max_length=2000, description="Why, e.g. too many sevens without a bar.")


@dataclass(frozen=True)
class Rejection:
    """That nothing of a run is to be published.

    Attributes:
        message: By whom, and why.
    """

    message: str


@dataclass(frozen=True)
class ReviewPage:
    """What is looked at.

    Attributes:
        url: The gallery's.
        candidates: How many there are.
        kept: How many of them would be published.
    """

    url: str
    candidates: int
    kept: int


def require_resumable(config: AugmentConfig) -> None:
    """Refuse a run that would wait for approval where nobody could make it go on.

    Raises:
        InputError: `publish.review` is on, and the run is none of a deployment.
    """
    context = FlowRunContext.get()
    deployment = None if context is None or context.flow_run is None else context.flow_run.deployment_id
    if config.publish.review and deployment is None:
        raise InputError(
            "publish.review suspends the run, and only a worker can go on with it: run the deployment (prefect "
            f"deployment run augment/{config.name}), or leave it false here and use `minority review` afterwards."
        )


def wait_for_approval(config: AugmentConfig, rounds: int) -> Decisions | Rejection:
    """Suspend the run of a flow until its form is filled in. Called again when the run goes on, it returns the answer.

    Marks that cannot be used suspend the run again, with the reason on the form.

    Args:
        config: The run.
        rounds: How many were drawn.
    """
    page, problem = write_review_page(config, rounds), ""
    for attempt in count():
        form = Approval.with_initial_data(description=_instructions(page, problem))
        answer = suspend_flow_run(wait_for_input=form, key=f"approval-{attempt}")
        get_run_logger().info("%s: %s %s", answer.decided_by, answer.verdict, answer.note)
        if answer.verdict == "reject":
            return Rejection(f"rejected by {answer.decided_by}: {answer.note or 'no reason given'}")
        try:
            return _decisions(config, rounds, answer)
        except (InputError, OSError) as error:
            problem = str(error)
            get_run_logger().warning("the marks cannot be used: %s", problem)
    raise AssertionError("it is asked until there is an answer")


@task(task_run_name="review of {config.name}", **TRIED_AGAIN)
def write_review_page(config: AugmentConfig, rounds: int) -> ReviewPage:
    """Write the gallery of a run that is not published yet, and show it in Prefect."""
    rows, units = _rows(config, rounds)
    metadata = pd.concat([part.to_pandas() for part in rows], ignore_index=True)
    candidates = metadata[metadata["sampler"] == "minority"]
    run_id = open_workspace(config).run.run_id
    inputs = GalleryInputs(
        dataset=config.name,
        run_id=run_id,
        metadata=metadata,
        read_unit=lambda unit: open_unit(units, unit),
    )
    page = ReviewPage(write_gallery(inputs, units, folder=_FOLDER), len(candidates), int(candidates["kept"].sum()))
    address = web_url(page.url, store=config.store)
    show_place(page.url, key=artifact_key(config.name, "gallery"), description="Every candidate", url=address)
    if page.kept:
        sheet = _kept_sheet(candidates[candidates["kept"]], inputs)
        show_picture(
            sheet, key=artifact_key(config.name, "kept"), description="Some of the images that would be published"
        )
    create_markdown_artifact(
        key=artifact_key(config.name, "review"), markdown=_instructions(page, ""), description="Review"
    )
    return page


def _kept_sheet(kept: pd.DataFrame, inputs: GalleryInputs) -> bytes:
    """The first images of each group that would be published, as PNG."""
    rows = []
    for group, members in list(kept.groupby("group", sort=True))[:_MOST_ROWS]:
        chosen = members.head(_A_ROW)
        images = [inputs.read_unit(unit)[key] for key, unit in zip(chosen["key"], chosen["unit"], strict=True)]
        rows.append((f"{group} ({len(members)})", images))
    return contact_sheet(rows, image_shape=rows[0][1][0].shape, columns=_A_ROW)


def _rows(config: AugmentConfig, rounds: int) -> tuple[Iterator[pa.Table], Store]:
    """The rows of a run with the choice as it stands, and the run's store."""
    workspace = open_workspace(config)
    store = open_run_store(workspace.run)
    plans, choice = chosen_candidates(workspace, store, rounds=rounds)
    return run_rows(store, plans, choice), store


def _decisions(config: AugmentConfig, rounds: int, answer: Approval) -> Decisions:
    run_id = open_workspace(config).run.run_id
    if not answer.marks.strip():
        return Decisions(config.name, run_id, {}, approved_by=answer.decided_by)
    decisions = read_decisions(_content(answer.marks.strip()), name="marks", otherwise=answer.decided_by)
    if (decisions.dataset, decisions.run_id) != (config.name, run_id):
        raise InputError(
            f"marks are about run {decisions.run_id} of {decisions.dataset}, this is run {run_id} of {config.name}; "
            "give what this run's gallery exported."
        )
    keys = pa.concat_tables([part.select(["key", "sampler"]) for part in _rows(config, rounds)[0]])
    require_candidates(decisions, keys, name="marks")
    return replace(decisions, approved_by=answer.decided_by)


def _content(marks: str) -> bytes:
    """The exported file, which is given itself or by its place."""
    if marks.startswith("{"):
        return marks.encode("utf-8")
    folder, _, name = marks.rpartition("/")
    try:
        return Store(folder or ".").read(name)
    except (FileNotFoundError, StoreError, ValueError) as error:
        raise InputError(
            f"marks name {marks!r:.200}, which the worker cannot read ({error}); paste the file's content instead."
        ) from error


def _instructions(page: ReviewPage, problem: str) -> str:
    """What the form says, in Markdown."""
    warning = f"**The marks could not be used: {for_markdown(problem)}**\n\n" if problem else ""
    return (
        f"{warning}Of {page.candidates} candidates {page.kept} would be published. Look at them in the gallery: "
        f"{for_markdown(page.url)}\n\n"
        "Mark what is bad there, export the marks, and give them here. What is marked bad is not published; its places "
        "are filled with other candidates under the same rules. Resume the run with the form."
    )
