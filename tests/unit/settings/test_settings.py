"""Where settings come from, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from perdure.errors import Invalid
from perdure.llm import RetryPolicy
from perdure.settings import Settings, list_settings, load_settings


def test_without_anything_set_all_are_defaults() -> None:
    assert load_settings({}) == Settings()
    assert {line.origin for line in list_settings({})} == {"default"}


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text('[run]\npoll_s = 3\nbeat_s = 4\n[stores]\nagent = "other"\n')
    environ = {"PERDURE_SETTINGS_FILE": str(file), "PERDURE_RUN__POLL_S": "7"}
    settings = load_settings(environ)
    assert (settings.run.poll_s, settings.run.beat_s, settings.stores.agent) == (7.0, 4.0, "other")
    origins = {line.name: line.origin for line in list_settings(environ)}
    assert origins["PERDURE_RUN__POLL_S"] == "environment (PERDURE_RUN__POLL_S)"
    assert origins["PERDURE_RUN__BEAT_S"] == "file"
    assert origins["PERDURE_RUN__STALE_S"] == "default"


def test_names_that_dapr_and_opentelemetry_set_are_heard() -> None:
    environ = {
        "APP_ID": "weather",
        "APP_PORT": "8101",
        "DAPR_GRPC_PORT": "60001",
        "DAPR_HTTP_ENDPOINT": "https://dapr.example",
        "DAPR_API_TOKEN": "t1",
        "APP_API_TOKEN": "t2",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "REDIS_URL": "redis://cache",
    }
    settings = load_settings(environ)
    dapr = settings.dapr
    assert (dapr.app_id, dapr.app_port, dapr.grpc_address) == ("weather", 8101, "127.0.0.1:60001")
    assert dapr.http_address == "https://dapr.example"
    assert (dapr.api_token, dapr.app_token) == (SecretStr("t1"), SecretStr("t2"))
    assert settings.observability.otlp_endpoint == "http://collector:4318"
    assert settings.state.redis_url == SecretStr("redis://cache")


def test_our_own_name_wins_over_a_foreign_one() -> None:
    assert load_settings({"APP_ID": "a", "PERDURE_DAPR__APP_ID": "b"}).dapr.app_id == "b"


def test_an_empty_value_counts_as_not_set() -> None:
    assert load_settings({"APP_PORT": "", "PERDURE_RUN__POLL_S": ""}) == Settings()


def test_names_that_steer_the_tests_are_left_alone() -> None:
    assert load_settings({"PERDURE_TEST_DAPR_BIN": "/x", "PERDURE_CHAOS_KILLS": "20"}) == Settings()


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({"PERDURE_RUN__POL_S": "1"}, "setting_unknown", "did you mean PERDURE_RUN__POLL_S"),
        ({"PERDURE_XYZZY": "1"}, "setting_unknown", "PERDURE_XYZZY is not a setting"),
        ({"PERDURE_RUN__POLL_S": "soon"}, "setting_wrong", "PERDURE_RUN__POLL_S: Input should be a valid number"),
        ({"PERDURE_RUN__POLL_S": "0"}, "setting_wrong", "greater than 0"),
        ({"APP_PORT": "70000"}, "setting_wrong", "PERDURE_DAPR__APP_PORT or APP_PORT"),
        ({"PERDURE_LLM__PRICES": "cheap"}, "setting_wrong", "PERDURE_LLM__PRICES must be JSON"),
        ({"PERDURE_SETTINGS_FILE": "/nowhere/x.toml"}, "settings_file_wrong", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(environ: dict[str, str], code: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        load_settings(environ)
    assert caught.value.code == code
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[runs]\n", "did you mean run"),
        ("[run]\npol_s = 1\n", "did you mean run.poll_s"),
        ("run = 1\n", "[run] is unknown"),
        ("[run", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text(content)
    with pytest.raises(Invalid) as caught:
        load_settings({}, file)
    assert said in caught.value.message


def test_secrets_are_shown_nowhere() -> None:
    environ = {"DAPR_API_TOKEN": "hush", "OPENAI_API_KEY": "hush", "REDIS_URL": "redis://:hush@x"}
    lines = list_settings(environ)
    assert "hush" not in repr(lines) + repr(load_settings(environ))
    assert [line.value for line in lines if line.name == "PERDURE_DAPR__API_TOKEN"] == ["********"]


def test_prices_are_given_as_json() -> None:
    prices = load_settings({"PERDURE_LLM__PRICES": '{"m": {"input_per_million": "2.5", "output_per_million": 10}}'})
    assert str(prices.llm.prices["m"].input_per_million) == "2.5"


def test_each_setting_says_why_it_is_as_it_is() -> None:
    assert [line.name for line in list_settings({}) if not line.about] == []


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings({}).run.poll_s = 2


def test_the_defaults_for_repeated_calls_are_those_of_the_library() -> None:
    llm, policy = Settings().llm, RetryPolicy()
    assert (llm.max_attempts, llm.first_wait_s, llm.max_wait_s, llm.total_s) == (
        policy.max_attempts,
        policy.first_wait_s,
        policy.max_wait_s,
        policy.total_s,
    )
