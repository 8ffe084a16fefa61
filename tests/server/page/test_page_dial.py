"""The page's dial in a real browser, and the modules that know nothing of the page."""

from __future__ import annotations

import pytest
from page_user import Open, answer_with, ask

PLANS = {
    "default": "chess@0.5",
    "data": [
        {"id": "auto", "most_sparsity": 0.4, "most_sparsity_unforced": 0.4, "positions": []},
        {
            "id": "chess",
            "most_sparsity": 0.6,
            "most_sparsity_unforced": 0.3,
            "positions": [
                {"sparsity": 0, "level": 0, "kl": 0},
                {"sparsity": 0.2, "level": 0.5, "kl": 0.04},
                {"sparsity": 0.6, "level": 1, "kl": 0.24},
            ],
        },
    ],
}


def test_the_dial_tells_what_it_costs_and_is_followed(visit: Open) -> None:
    page = visit()
    page.get_by_text("sparity-edge calibrate").wait_for()  # there is no plan
    page.route("**/v1/plans", lambda route: route.fulfill(json=PLANS))
    page.reload()
    page.locator("#dial-box").wait_for()
    assert page.input_value("#plan") == "chess"
    assert page.locator("#dial-value").inner_text() == "20 %"
    facts = page.locator("#facts")
    assert "0.040" in facts.inner_text()
    assert "active, expected\n80 %" in facts.inner_text()
    for _ in range(20):
        page.press("#dial", "ArrowRight")
    assert "0.14" in facts.inner_text()
    assert page.get_attribute("#dial", "aria-valuetext") == "40 % of weights skipped, KL 0.14"
    answer_with(page, "a", 0.613, **{"X-Sparity-Plan": "chess:0.4"})
    with page.expect_request("**/v1/chat/completions") as sent:
        assert "61 % of weights read (chess:0.4)" in ask(page, "hello").inner_text()
    asked = sent.value.post_data_json
    assert (asked["plan"], asked["sparsity"], asked["force"]) == ("chess", 0.4, True)
    assert "active, measured\n61.3 %" in facts.inner_text()
    page.press("#dial", "Home")
    assert "100 %" in facts.inner_text()
    page.reload()
    page.locator("#dial-box").wait_for()
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "hello")
    assert sent.value.post_data_json["sparsity"] == 0
    page.select_option("#plan", "auto")
    page.press("#dial", "End")
    assert "unknown" in facts.inner_text()


def test_the_modules_that_know_nothing_of_the_page(visit: Open) -> None:
    turns, events, broken, failed, half, far = visit().evaluate(
        """async (plan) => {
            const { asked } = await import('/page/conversation.js');
            const { events } = await import('/page/client.js');
            const { klAt, positionOf } = await import('/page/dial.js');
            const turn = (role, content) => ({ role, content });
            const bytes = (text) => new ReadableStream({ start(control) {
                for (const each of new TextEncoder().encode(text)) {
                    control.enqueue(new Uint8Array([each]));
                }
                control.close();
            } });
            const read = async (text) => {
                const found = [];
                for await (const each of events(bytes(text))) found.push(each);
                return found;
            };
            const talk = [turn('user', 'a'), turn('assistant', ''), turn('user', 'b')];
            return [
                asked(talk, 'c'),
                await read('data: {"a": "ä€"}\\n\\ndata: [1]\\n\\ndata: [DONE]\\n\\n'),
                await read('data: 1\\n\\n').catch((error) => error.message),
                await read('data: {"error": {"message": "no"}}\\n\\n')
                    .catch((error) => error.message),
                klAt(plan, 0.1),
                positionOf('chess@0.9', [plan]),
            ];
        }""",
        PLANS["data"][1],
    )
    assert turns == [{"role": "system", "content": "c"}, {"role": "user", "content": "a\n\nb"}]
    assert events == [{"a": "ä€"}, [1]]
    assert "broke off" in broken
    assert failed == "no"
    assert half == pytest.approx(0.02)
    assert far == {"plan": "chess", "sparsity": 0.6}
