"""Results as data: every value once, in words, the same in both formats."""

import pandas as pd
import pytest

from robust_flatness.errors import ConfigError, FileError
from robust_flatness.tables.dataset import COLUMNS, PAPER, write_dataset

MODELS = """variant,seed,checkpoint,family,label,test_rloss_pgd,train_rloss_pgd,avg_flatness_rloss,\
avg_flatness_rloss_se,avg_flatness_rloss_std,avg_flatness_rloss_0.25,setting_learning_rate,setting_schedule
at,0,last,at,AT,2.5,1.5,0.4,0.02,0.06,0.1,0.5,multi-step
at,0,best,at,AT,2.1,1.9,0.2,,,,0.5,multi-step
mine/odd,3,last,other,Mine,2.2,,0.3,,,,0.1,constant
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "tour").mkdir()
    (folder / "tour/models.csv").write_text(MODELS)
    write_dataset([folder / "tour"], folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "measurements.csv", keep_default_na=False, na_values=[""])


def test_every_value_is_a_row_with_its_spread_beside_it(table):
    tour = table[table["experiment"] == "tour"]
    assert [*table.columns] == [*COLUMNS]
    assert len(tour[tour["kind"] == "measure"]) == 4 + 3 + 2
    assert len(tour[tour["kind"] == "setting"]) == 6
    flat = tour.query("name == 'avg_flatness_rloss' and checkpoint == 'last' and variant == 'at'")
    main, other = flat[flat["xi"].isna()].iloc[0], flat[flat["xi"].notna()].iloc[0]
    assert (main["value"], main["standard_error"], main["standard_deviation"]) == (0.4, 0.02, 0.06)
    assert (other["value"], other["xi"], other["split"]) == (0.1, 0.25, "test")
    train = tour.query("name == 'rloss_pgd' and split == 'train' and checkpoint == 'best'")
    assert train["value"].tolist() == [1.9]


def test_both_formats_hold_the_same(folder, table):
    parquet = pd.read_parquet(folder / "measurements.parquet")
    assert [*parquet.columns] == [*table.columns]
    for name in table:
        words = table[name].dtype == object or str(table[name].dtype).startswith("str")
        filling = "" if words else -1
        assert parquet[name].fillna(filling).tolist() == table[name].fillna(filling).tolist()


def test_the_printed_numbers_come_along(table):
    paper = table[table["experiment"] == PAPER]
    at = paper.query("variant == 'at' and name == 'rerr_aa' and split == 'test' and checkpoint == 'last'")
    assert at["value"].tolist() == [62.8]
    assert paper["variant"].nunique() >= 74


def test_every_name_is_in_the_dictionary(folder, table):
    dictionary = pd.read_csv(folder / "dictionary.csv", keep_default_na=False)
    assert set(zip(dictionary["kind"], dictionary["name"], strict=True)) == {
        *zip(table["kind"], table["name"], strict=True)
    }
    words = dictionary.set_index("name")
    assert words.loc["avg_flatness_rloss", "words"] == "average-case flatness in RLoss"
    assert words.loc["rerr_aa", "unit"] == "per cent"


def test_a_card_for_each_checkpoint(folder):
    cards = sorted(path.name for path in (folder / "models/tour").glob("*.md"))
    assert cards == ["at-seed-0-best.md", "at-seed-0-last.md", "mine_odd-seed-3-last.md"]
    card = (folder / "models/tour/at-seed-0-last.md").read_text()
    assert "| test RLoss | 2.5 | lower is more robust |" in card
    assert "| learning rate | 0.5 |" in card


def test_bad_input(folder, tmp_path):
    with pytest.raises(ConfigError, match="name each experiment once"):
        write_dataset([folder.parent / "tour", folder.parent / "tour"], tmp_path)
    with pytest.raises(FileError, match=r"nothing/models\.csv"):
        write_dataset([tmp_path / "nothing"], tmp_path)
