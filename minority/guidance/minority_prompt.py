"""MinorityPrompt (Um & Ye, CVPR 2025): a word is added to the prompt and learned towards rarity along the chain.

Before a step, N times, with v the embedding of the new words and C(v), C that of the prompt with and without them:

    z  = x0_hat(x_t, C(v)),   x_s = sqrt(abar_s) z + sqrt(1 - abar_s) eps,   z' = x0_hat(x_s, C)
    v <- Adam step uphill on |stop(z) - z'| + balance |z - stop(z')|

The step itself is then taken with C(v). v goes on from its last value at the next step, while Adam starts anew. No
classifier-free guidance inside. The weights of the network and of the text encoder stay as they are.

Shapes: B samples, n words a sample, D features of a word, C channels, H x W latent pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.backbones.text.clip import ClipEncoder
from minority.backbones.text.denoiser import FlowTextDenoiser, TextDenoiser
from minority.diffusion.chain import Chain
from minority.diffusion.condition import Condition, Embedding
from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance import Guidance
from minority.guidance.gradients import refusal_where_offloaded
from minority.guidance.method import Method
from minority.solvers import Solver

_WORDS = "minority_prompt"
_START = 0  # the draw of the noise that words start from


@dataclass(frozen=True, kw_only=True)
class MinorityPrompt(Method):
    """For backbones with CLIP text encoders; costs 6 x iterations evaluations a guided step, and the text encoder.

    Attributes:
        iterations: N, Adam's steps before each guided step of the chain.
        learning_rate: Adam's.
        decay: Share of the learning rate that is lost a step of the chain.
        words: n, learnable words a prompt.
        position: Where they stand in the prompt.
        initial: What they start from: a word ("word"), or the vocabulary's mean with `initial_scale` of its deviations
            ("normal").
        word: The word; must be one token.
        initial_scale: Of the vocabulary's deviations.
        above: Guide only timesteps above this share of the trained ones (towards noise); -1 guides to the very end.
        interval: Every so manieth step is guided, counted from the noisy end.
        perturbation: s as a share of the trained timesteps, in [0, 1); None takes one that grows along the chain,
            T - t + T // steps - 1 at timestep t, and the noisiest trained level where that is more.
        balance: Weight of the second term, lambda.
        plain_after: Whether steps that are not guided take the plain prompt again, instead of the last learned one.
    """

    key: ClassVar[str] = "minority_prompt"
    paper: ClassVar[str] = "Um & Ye, CVPR 2025, arXiv 2410.07838"
    line: ClassVar[str] = "learns a word of the prompt towards rarity along the chain"
    needs_prompts: ClassVar[bool] = True

    iterations: int = 10
    learning_rate: float = 0.01
    decay: float = 0.0
    words: int = 1
    position: Literal["start", "end"] = "end"
    initial: Literal["word", "normal"] = "normal"
    word: str = ""
    initial_scale: float = 1.0
    above: float = 0.9
    interval: int = 1
    perturbation: float | None = 0.75
    balance: float = 1.0
    plain_after: bool = False

    def __post_init__(self) -> None:
        if min(self.iterations, self.words, self.interval) < 1:
            raise ValueError(
                "MinorityPrompt.iterations, .words and .interval must be at least 1, got "
                f"{self.iterations}, {self.words} and {self.interval}."
            )
        if not self.learning_rate > 0:
            raise ValueError(f"MinorityPrompt.learning_rate must be positive, got {self.learning_rate}.")
        if self.perturbation is not None and not 0 <= self.perturbation < 1:
            raise ValueError(f"MinorityPrompt.perturbation must lie in [0, 1) or be none, got {self.perturbation}.")
        if self.initial == "word" and not self.word:
            raise ValueError('MinorityPrompt.word is not set; name the word to start from, or set initial to "normal".')

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs a backbone that is told prompts, and whose network stays on the device."""
        if backbone.prompts is None:
            return f"backbone {backbone.name} draws by no prompts, so it learns no word; leave minority_prompt out."
        return refusal_where_offloaded(backbone, network=True, decoder=False)

    def extra_evaluations(self, step: int, num_steps: int) -> float:
        """Two predictions and two backward passes an iteration of a guided step, on evenly spaced chains."""
        guided = (num_steps - 1 - step) % self.interval == 0 and step > self.above * num_steps
        return 6.0 * self.iterations if guided else 0.0

    def conflict(self, others: Sequence[Guidance], solver: Solver) -> str | None:
        """Two of them would overwrite one another's prompt."""
        if any(isinstance(other, MinorityPrompt) for other in others):
            return "there are two of it; give one."
        return None

    def condition(self, x_t: Tensor, step: int, chain: Chain, noise: NoiseSource) -> None:
        """Learn the words further, and tell the network the prompt with them.

        Raises:
            ValueError: Where the backbone is told no prompts that words could be added to.
        """
        from_noise = chain.schedule.num_steps - 1 - step
        if not self._acts(step, from_noise, chain.schedule):
            if self.plain_after:
                chain.condition = chain.given
            return
        denoiser = _text_denoiser(chain)
        texts = _prompts_of(chain.given, denoiser)
        clips = denoiser.encoders.clips(x_t.device)
        if _WORDS not in chain.kept:
            chain.kept[_WORDS] = self.first_words(clips, len(x_t), noise)
        words = [word.detach().clone().requires_grad_(True) for word in chain.kept[_WORDS]]
        optimiser = torch.optim.Adam(words, lr=self.learning_rate * (1 - from_noise * self.decay))
        for draw in range(self.iterations):
            with torch.enable_grad():
                embedding = denoiser.encoders.embed(texts, words, position=self.position)
                rarity = self._rarity(x_t, step, embedding, chain, noise.perturbation(step, draw))
                gradients = torch.autograd.grad(-rarity.sum(), words)
            chain.cost.backwards += 2
            for word, gradient in zip(words, gradients, strict=True):
                word.grad = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            optimiser.step()
        chain.kept[_WORDS] = [word.detach() for word in words]
        with torch.no_grad():
            chain.condition = denoiser.encoders.embed(texts, chain.kept[_WORDS], position=self.position)

    def first_words(self, clips: Sequence[ClipEncoder], batch: int, noise: NoiseSource) -> list[Tensor]:
        """What the words start from, (B, n, D) for each encoder; override for another start."""
        if not clips:
            raise ValueError("MinorityPrompt needs a backbone with CLIP text encoders: Stable Diffusion 1, 2 or XL.")
        started = []
        for number, clip in enumerate(clips):
            table = clip.vocabulary.detach()
            shape = (self.words, table.shape[1])
            if self.initial == "word":
                started.append(table[clip.word(self.word)].expand(batch, *shape).clone())
                continue
            normal = noise.condition(_START, number, shape).to(table)
            deviation = table.var(dim=0, unbiased=False).sqrt()
            started.append(table.mean(dim=0) + self.initial_scale * deviation * normal)
        return started

    def _acts(self, step: int, from_noise: int, schedule: NoiseSchedule) -> bool:
        return from_noise % self.interval == 0 and _position(schedule, step) > self.above * schedule.trained.num_steps

    def _rarity(self, x_t: Tensor, step: int, embedding: Embedding, chain: Chain, eps: Tensor) -> Tensor:
        """(B,) how far the clean estimate moves when it is noised and denoised by the plain prompt."""
        schedule, batch = chain.schedule, len(x_t)
        here = chain.ask(x_t, schedule.timestep(step, batch, x_t.device), embedding)
        z = schedule.x0_from_eps(x_t, step, here.eps) if here.x0_hat is None else here.x0_hat
        levels, s = self._perturbed_level(step, schedule)
        x_s = levels.noised(z, s, eps)
        there = chain.ask(x_s, levels.timestep(s, batch, x_t.device), chain.given)
        again = levels.x0_from_eps(x_s, s, there.eps) if there.x0_hat is None else there.x0_hat
        return _distance(z.detach(), again) + self.balance * _distance(z, again.detach())

    def _perturbed_level(self, step: int, schedule: NoiseSchedule) -> tuple[NoiseSchedule, int]:
        """s, as a step of a schedule of all trained levels."""
        trained = schedule.trained
        if self.perturbation is not None:
            return trained, trained.step_at(self.perturbation)
        stride = trained.num_steps // schedule.num_steps
        timestep = trained.num_steps - int(_position(schedule, step)) + stride - 1
        late = _is_late(schedule)
        levels = trained.shifted_one_level() if late else trained
        return levels, max(0, min(timestep - late, trained.num_steps - 1))


def _position(schedule: NoiseSchedule, step: int) -> float:
    """A step among the trained timesteps; of a flow, whose steps lie between them, where even ones would be."""
    if np.issubdtype(schedule.timesteps.dtype, np.integer):
        return float(schedule.timesteps[step])
    return (step + 1) * (schedule.trained.num_steps // schedule.num_steps) - 1.0


def _is_late(schedule: NoiseSchedule) -> int:
    """1 where the network is told the next noisier level (`NoiseSchedule.shifted_one_level`), else 0."""
    if not np.issubdtype(schedule.timesteps.dtype, np.integer):
        return 0
    timestep = int(schedule.timesteps[-1])
    return int(timestep >= schedule.trained.num_steps or schedule.trained.abar[timestep] != schedule.abar[-1])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm((a - b).flatten(1), dim=1)


def _text_denoiser(chain: Chain) -> TextDenoiser | FlowTextDenoiser:
    if not isinstance(chain.denoiser, (TextDenoiser, FlowTextDenoiser)):
        raise ValueError("MinorityPrompt learns a word of the prompt; this backbone is told no prompts, leave it out.")
    return chain.denoiser


def _prompts_of(condition: Condition, denoiser: TextDenoiser | FlowTextDenoiser) -> list[str]:
    if not isinstance(condition, Tensor):
        raise ValueError("MinorityPrompt needs to know the prompts: give rows of the backbone's table as conditions.")
    return [denoiser.texts[row] for row in condition.tolist()]
