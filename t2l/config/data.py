"""Settings of tasks, descriptions and prompts."""

from typing import Literal

from pydantic import Field

from t2l.config.settings import Settings


class DataConfig(Settings):
    """Tasks, descriptions and prompts."""

    suite: Literal["universe", "sub_universe"] = "universe"
    num_train_tasks: int | None = Field(default=479, ge=1, description="universe: None takes all of them.")
    num_descriptions: int = Field(default=128, ge=1, description="Training uses the first so many of each task.")
    definition: Literal["never", "always", "dropout"] = Field(
        default="never", description="Whether prompts carry the description; dropout: sometimes."
    )
    definition_dropout: float = Field(default=0.5, ge=0, le=1, description="Share of prompts without it, for dropout.")
    max_prompt_tokens: int = Field(default=512, ge=1)
    max_response_tokens: int = Field(default=512, ge=1)
    loader_workers: int = Field(default=0, ge=0, description="Processes that make batches ahead; 0: none.")
    domain: str = Field(default="words", description="sub_universe: the domain of its tasks.")
    picks: tuple[str, ...] = Field(default=(), description="sub_universe: operations that pick; empty: all.")
    renders: tuple[str, ...] = Field(default=(), description="sub_universe: operations that render; empty: all.")
    num_validation: int = Field(default=8, ge=0, description="sub_universe: validation tasks.")
    num_test: int = Field(default=16, ge=0, description="sub_universe: test tasks.")
