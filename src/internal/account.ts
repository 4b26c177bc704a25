/**
 * The account that a shutdown keeps: who takes part in it, and what became of each.
 */
import * as Result from "effect/Result"
import type { Gate, Section } from "./gate.ts"
import type { Drainable, FinalizerEnd, ReleasingLayer, RunningFinalizer } from "./kms.ts"
import type { Phase, Reason } from "./phase.ts"
import { first, held } from "./place.ts"
import type { FinalizerReport, PhaseReport, Report, SectionReport, SectionStatus, Status } from "./report.ts"

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

export class Account {
  readonly drains = new Set<Drainable>()
  private readonly gate: Gate
  private readonly now: () => number
  private readonly running = new Set<RunningFinalizer>()
  /** Those that nobody waits for any longer. */
  private readonly abandoned = new Set<RunningFinalizer>()
  private readonly finalized: Array<FinalizerReport> = []
  private readonly sections = new Map<string, Mutable<SectionReport>>()
  private readonly layers = new Set<ReleasingLayer & { readonly since: number }>()
  private readonly phases: Array<Mutable<PhaseReport>> = []
  /** When there was a reason to end. */
  private since: number | undefined
  private endedAt: number | undefined

  constructor(gate: Gate, now: () => number) {
    this.gate = gate
    this.now = now
  }

  /** There is a reason to end, since `at`. */
  begin(at: number): void {
    this.since = at
  }

  /** Nobody waits for anything any longer. */
  end(): void {
    this.endedAt = this.now()
  }

  private get elapsed(): number {
    return (this.endedAt ?? this.now()) - (this.since ?? this.now())
  }

  moved(phase: Phase["_tag"]): void {
    const at = this.elapsed
    const last = this.phases.at(-1)
    if (last !== undefined) last.to = at
    if (phase === "LameDuck" || phase === "Draining" || phase === "Unwinding") {
      this.phases.push({ phase, from: last?.to ?? 0, to: at })
    }
  }

  /** Whether nothing takes part. */
  get isEmpty(): boolean {
    return this.drains.size === 0 && this.gate.live.size === 0
  }

  // --- Busy sections ---

  /** A section has ended by itself in the drain, or has been interrupted at its deadline. */
  note({ name, since }: Section, end: "drained" | "cut"): void {
    const from = Math.max(0, since - (this.since ?? since))
    const report = this.sections.get(name) ?? { name, drained: 0, cut: 0, abandoned: 0, from, to: from }
    report[end]++
    report.from = Math.min(report.from, from)
    report.to = this.elapsed
    this.sections.set(name, report)
  }

  /** A section that was cut has ended after all. */
  unwound({ name }: Section): void {
    const report = this.sections.get(name)
    if (report !== undefined) report.to = this.elapsed
  }

  // --- Finalizers ---

  finalizing(finalizer: RunningFinalizer): (end: FinalizerEnd) => void {
    this.running.add(finalizer)
    return (end) => {
      this.running.delete(finalizer)
      if (end.outcome === "timed out" || end.outcome === "abandoned") this.abandoned.add(finalizer)
      if (this.since === undefined) return
      const { name, since } = finalizer
      this.finalized.push({ name, ...end, from: Math.max(0, since - this.since), to: this.elapsed })
    }
  }

  // --- Layers ---

  releasing(layer: ReleasingLayer): () => void {
    const released = { ...layer, since: this.now() }
    this.layers.add(released)
    return () => this.layers.delete(released)
  }

  /** Layers with a finalizer that has not ended, and that has no name. */
  private unnamed(): Array<string> {
    const named = new Set([...this.running, ...this.abandoned].map(({ fiber }) => fiber))
    const layers = Array.from(this.layers).filter(({ fiber }) => !named.has(fiber))
    // One that is made of others waits for them. Where there are only such, it is the last one that has begun.
    const single = layers.filter(({ isComposite }) => !isComposite)
    const open = single.length > 0 ? single : layers.slice(-1)
    return open.map(({ fiber, services, since }) => {
      const what = services.length === 0 ? "a layer without services" : `the layer of ${services.join(" and ")}`
      return held(`a finalizer of ${what}`, this.now() - since, fiber)
    })
  }

  // --- Telling ---

  /** What has not ended, each by its name, for how long, and where it is. */
  held(): Array<string> {
    const at = this.now()
    const sections = Array.from(this.gate.live, ({ fiber, name, since }) => held(`busy "${name}"`, at - since, fiber))
    const abandoned = Array.from(this.abandoned).filter(({ fiber }) => fiber.pollUnsafe() === undefined)
    return [
      // A listener that cannot tell keeps nobody from being released.
      ...Array.from(this.drains).flatMap((drain) => Result.getOrElse(Result.try(drain.held), () => [])),
      ...first(sections, max, "busy: "),
      ...[...this.running, ...abandoned].map(({ fiber, name, since }) =>
        held(`finalizer "${name}"`, at - since, fiber)
      ),
      ...first(this.unnamed(), max, "finalizers of layers: ")
    ]
  }

  status(phase: Phase, started: boolean): Status {
    const at = this.now()
    const ending = phase._tag === "Running" ? undefined : phase
    const left = ending === undefined ? Number.POSITIVE_INFINITY : Math.max(0, ending.deadline - at)
    return {
      phase: phase._tag,
      started,
      ...(ending === undefined ? {} : { reason: ending.reason }),
      ...(left === Number.POSITIVE_INFINITY ? {} : { left }),
      listeners: Array.from(this.drains).flatMap((drain) => Result.getOrElse(Result.try(drain.status), () => [])),
      sections: live(this.gate.live, at),
      finalizers: Array.from(this.running, ({ name, since }) => ({ name, age: at - since }))
    }
  }

  report(reason: Reason, forced: boolean, hung: ReadonlyArray<string>): Report {
    const since = this.since ?? this.now()
    const left = new Map(live(this.gate.live, this.now()).map(({ inFlight, name }) => [name, inFlight]))
    return {
      reason,
      forced,
      startedAt: since,
      millis: this.elapsed,
      // What ends later is not to change what has been told.
      phases: this.phases.map((phase) => ({ ...phase })),
      listeners: Array.from(this.drains).flatMap((drain) => drain.report(since) ?? []),
      sections: Array.from(this.sections.values(), (section) => ({
        ...section,
        abandoned: Math.min(section.cut, left.get(section.name) ?? 0)
      })),
      finalizers: Array.from(this.finalized),
      hung
    }
  }
}

/** As many of one kind are named. */
const max = 100

/** Live sections by their names. */
const live = (sections: Iterable<Section>, at: number): ReadonlyArray<SectionStatus> => {
  const names = new Map<string, SectionStatus>()
  for (const { name, since } of sections) {
    const { age, inFlight } = names.get(name) ?? { age: 0, inFlight: 0 }
    names.set(name, { name, inFlight: inFlight + 1, age: Math.max(age, at - since) })
  }
  return Array.from(names.values())
}
