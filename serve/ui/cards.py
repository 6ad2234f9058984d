"""The card under the button, as HTML: what came of a description."""

from html import escape

from serve.ui.client import Adapter, PageError, sentence


def made_card(adapter: Adapter) -> str:
    """How long it took and how near it is; a warning, visibly different, if it is far from anything known."""
    facts = ["made before" if adapter.seconds is None else f"made in {1000 * adapter.seconds:.0f} ms"]
    if adapter.nearness is not None and adapter.warning is None:  # a warning says it
        facts.append(f"nearness {adapter.nearness:.2f}")
    kind, title, warning = "made", "✓ Adapter ready", ""
    if adapter.warning is not None:
        kind, title, warning = "far", "⚠ Far from anything known", f"<p>{escape(sentence(adapter.warning))}</p>"
    about = f"<p>“{escape(adapter.description)}”</p>{warning}<p>{' · '.join(facts)}</p><code>{adapter.id}</code>"
    return f'<div class="card {kind}" role="status"><b>{title}</b>{about}</div>'


def failed_card(failure: PageError) -> str:
    return f'<div class="card failed" role="alert"><b>✗ That did not work</b><p>{escape(str(failure))}</p></div>'
