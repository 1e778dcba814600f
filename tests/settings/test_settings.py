"""Settings: the user's file lies over the defaults, and what is wrong is named by file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.settings import HostSettings, SettingsError, load_hosts, load_settings, remove_host, save_host


def test_the_users_file_lies_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[providers.gemini]\ntimeout_s = 7\n[app]\ntheme = "light"\n')
    settings = load_settings(tmp_path)
    assert settings.provider("gemini").timeout_s == 7
    assert settings.provider("gemini").parallel == 8, "what the user does not name stays the default"
    assert settings.app.theme == "light"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[app]\ntheme = 'blue'\n", ":2: app.theme: Input should be 'dark' or 'light', found 'blue'"),
        ("[campaign]\n\ntemprature = 1\n", ":3: campaign.temprature: no such key"),
        ("[providers.gemini]\ntimeout_s = 0\n", ":2: providers.gemini.timeout_s"),
        ("[providers.gemni]\ntimeout_s = 1\n", "gemni"),
        ("[app\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "settings.toml"))
    assert words in str(caught.value)


def test_hosts_keep_the_users_comments_and_each_other(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text('# my machines\n[hosts.old]\naddress = "old"  # in the cellar\n')
    save_host(tmp_path, "new", HostSettings(address="10.0.0.2", port=2222, root="D:/hafs_training"))
    text = (tmp_path / "hosts.toml").read_text()
    assert "# my machines" in text
    assert "# in the cellar" in text
    hosts = load_hosts(tmp_path)
    assert list(hosts) == ["local", "old", "new"]
    assert (hosts["new"].address, hosts["new"].port, hosts["new"].root) == (
        "10.0.0.2",
        2222,
        "D:/hafs_training",
    )
    remove_host(tmp_path, "old")
    assert list(load_hosts(tmp_path)) == ["local", "new"]
    with pytest.raises(SettingsError, match="no host named old"):
        remove_host(tmp_path, "old")


def test_a_host_name_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot name a host"):
        save_host(tmp_path, "../../etc", HostSettings(address="a"))
    assert not (tmp_path / "hosts.toml").exists()
