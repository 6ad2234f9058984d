"""Settings of tasks, descriptions and prompts, one class a source of tasks; `suite` chooses it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag

from t2l.config.places import LocalPath
from t2l.config.settings import Settings


class DataConfig(Settings):
    """What all sources share."""

    num_descriptions: int = Field(
        default=128,
        ge=1,
        description="Training uses the first so many of each task; with condition=input, so many of its inputs.",
    )
    definition: Literal["never", "always", "dropout"] = Field(
        default="never", description="Whether prompts carry the description; dropout: sometimes."
    )
    definition_dropout: float = Field(default=0.5, ge=0, le=1, description="Share of prompts without it, for dropout.")
    max_prompt_tokens: int = Field(default=512, ge=1, description="Of longer prompts the end is kept.")
    max_response_tokens: int = Field(default=512, ge=1)
    loader_workers: int = Field(default=0, ge=0, description="Processes that make batches ahead; 0: none.")
    run_code: bool = Field(default=False, description="Answers that are code may be run, where a task is graded so.")

    def within(self, positions: int | None) -> Self:
        """With limits on tokens that add up to no more than a base model's positions (None: it has no limit)."""
        if positions is None or self.max_prompt_tokens + self.max_response_tokens <= positions:
            return self
        response = min(self.max_response_tokens, positions // 2)
        prompt = min(self.max_prompt_tokens, positions - response)
        return self.model_copy(update={"max_prompt_tokens": prompt, "max_response_tokens": response})


class UniverseConfig(DataConfig):
    """The embedded universe."""

    suite: Literal["universe"] = "universe"
    num_train_tasks: int | None = Field(default=479, ge=1, description="None takes all of them.")


class SubUniverseConfig(DataConfig):
    """A small world: one domain of the universe and some of its operations, with splits of its own."""

    suite: Literal["sub_universe"] = "sub_universe"
    domain: str = "words"
    picks: tuple[str, ...] = Field(default=(), description="Operations that pick; empty: all.")
    renders: tuple[str, ...] = Field(default=(), description="Operations that render; empty: all.")
    num_validation: int = Field(default=8, ge=0)
    num_test: int = Field(default=16, ge=0)


class FilesConfig(DataConfig):
    """Tasks that other people wrote."""

    strict: bool = Field(default=False, description="End at a bad record, rather than leave it out and say so.")


class JsonlConfig(FilesConfig):
    """A user's own: a folder of task folders (t2l/tasks/sources/jsonl.py)."""

    suite: Literal["jsonl"] = "jsonl"
    path: LocalPath = Field(description="Folder of <task>/task.yaml, train.jsonl and test.jsonl.")


class NumberedConfig(FilesConfig):
    """Tasks of Super-NaturalInstructions, divided as in the paper."""

    descriptions: LocalPath = Field(
        default="",
        description="Checkout of text-to-lora or .tar.gz of its tasks/ and configs/; empty: definitions only.",
    )
    num_validation: int = Field(default=8, ge=0, description="Of the paper's 479 training tasks, held back.")
    num_train_tasks: int | None = Field(default=None, ge=1, description="None takes all that are left.")


class NaturalInstructionsConfig(NumberedConfig):
    """From JSON files."""

    suite: Literal["natural_instructions"] = "natural_instructions"
    path: LocalPath = Field(description="Folder of task*.json.")


class LotsOfLorasConfig(NumberedConfig):
    """From the hub's data sets Lots-of-LoRAs/task…, all of the 490 that are not contaminated."""

    suite: Literal["lots_of_loras"] = "lots_of_loras"


class BenchmarksConfig(FilesConfig):
    """The ten benchmarks of the paper, as test tasks."""

    suite: Literal["benchmarks"] = "benchmarks"
    names: tuple[str, ...] = Field(default=(), description="Such as arc_easy; empty: all ten.")
    path: LocalPath = Field(default="", description="Folder of one folder a benchmark; empty: --local-dir or the hub.")
    descriptions: LocalPath = Field(
        default="",
        description="Checkout of text-to-lora or .tar.gz, for the paper's own prompts and descriptions; empty: ours.",
    )
    max_prompt_tokens: int = Field(default=3584, ge=1, description="Of longer prompts the end is kept.")


def _suite(data: Any) -> str | None:
    """Which class of settings `data` is; plain settings without a suite are the universe's. None: no settings."""
    return str(data.get("suite", "universe")) if isinstance(data, dict) else getattr(data, "suite", None)


AnyDataConfig = Annotated[
    Annotated[UniverseConfig, Tag("universe")]
    | Annotated[SubUniverseConfig, Tag("sub_universe")]
    | Annotated[JsonlConfig, Tag("jsonl")]
    | Annotated[NaturalInstructionsConfig, Tag("natural_instructions")]
    | Annotated[LotsOfLorasConfig, Tag("lots_of_loras")]
    | Annotated[BenchmarksConfig, Tag("benchmarks")],
    Discriminator(_suite),
]
