import copy

import torch
from torch import nn

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.training.loop import Training
from robust_flatness.training.optimizers import averaged_weights


def test_average_starts_at_the_initial_weights_and_forgets_by_the_decay():
    model = nn.Linear(3, 2).double()
    average = averaged_weights(model, 0.7)
    expected = model.weight.detach().clone()
    for _ in range(4):
        nn.init.normal_(model.weight)
        average.update_parameters(model)
        expected = 0.7 * expected + 0.3 * model.weight.detach()
    torch.testing.assert_close(average.module.weight, expected, rtol=1e-12, atol=1e-14)


def test_the_average_is_saved_and_evaluated_and_does_not_touch_training(tmp_path, dataset, make_job):
    job = make_job(weight_averaging=0.9)
    run, plain = Training(job, dataset), Training(make_job(), dataset)
    recorded, update = [], run.average.update_parameters

    def recording(model):
        recorded.append(copy.deepcopy(model.state_dict()))
        update(model)

    run.average.update_parameters = recording
    expected = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    assert run.epoch(0) == plain.epoch(0)
    row = run.snapshot(0, tmp_path / "snapshot.safetensors")
    for weights in recorded:
        expected = {name: 0.9 * value + 0.1 * weights[name] for name, value in expected.items()}
    saved = load_checkpoint(tmp_path / "snapshot.safetensors").model
    for name, parameter in saved.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-6)
    assert run.evaluate(run.evaluator.at(saved)) == row
    # its batch norms have the means over one clean epoch, all images once
    batches = list(run._clean_batches(0))
    assert sum(map(len, batches)) == dataset.size("train")
    outputs = [saved.stem(saved.whitening(x)) for x in batches]
    mean = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    torch.testing.assert_close(saved.stem_norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    # a snapshot leaves the training's own weights and statistics alone
    states = (part.network.state_dict().values() for part in (run, plain))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
