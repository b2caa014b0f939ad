from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from twolayer.hardware import meeting
from twolayer.hardware.launchers import Place


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_ranks_talk_by_gloo_also_where_the_build_has_nccl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    ranks = meeting.join(Place(0, 1, 0, 1, meeting=str(tmp_path)), 60, 60)
    try:
        assert ranks.document()["back_end"] == "gloo"
        parts = [torch.empty(3)]
        ranks.gather(torch.arange(3.0), parts)
        assert parts[0].tolist() == [0, 1, 2]
    finally:
        ranks.close()
