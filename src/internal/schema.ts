/**
 * The schemas of status and report, for whoever sends them somewhere or reads them there, and their JSON.
 */
import * as Cause from "effect/Cause"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { constants } from "node:os"
import { inWords } from "./options.ts"
import type * as phase from "./phase.ts"
import type * as report from "./report.ts"

const signals = Object.keys(constants.signals) as ReadonlyArray<NodeJS.Signals>

const Reason = Schema.Union([
  Schema.TaggedStruct("Signal", { signal: Schema.Literals(signals) }),
  Schema.TaggedStruct("Interrupted", {}),
  Schema.TaggedStruct("Requested", { message: Schema.optional(Schema.String) }),
  Schema.TaggedStruct("Uncaught", { error: Schema.Defect() }),
  Schema.TaggedStruct("Failed", { cause: Schema.Cause(Schema.Defect(), Schema.Defect()) })
]) as unknown as Schema.Codec<phase.Reason, unknown>

const Work = Schema.Struct({ what: Schema.String, peer: Schema.String, age: Schema.Finite })
const counts = { drained: Schema.Int, cut: Schema.Int, abandoned: Schema.Int }
const listener = { name: Schema.String, kind: Schema.String, address: Schema.String }
const span = { from: Schema.Finite, to: Schema.Finite }
const running = { name: Schema.String, age: Schema.Finite }

export const Status: Schema.Codec<report.Status, unknown> = Schema.Struct({
  phase: Schema.Literals(["Running", "LameDuck", "Draining", "Unwinding", "Stopped"]),
  started: Schema.Boolean,
  reason: Schema.optional(Reason),
  left: Schema.optional(Schema.Finite),
  listeners: Schema.Array(
    Schema.Struct({
      ...listener,
      phase: Schema.Literals(["open", "draining", "closed"]),
      connections: Schema.Int,
      inFlight: Schema.Int,
      oldest: Schema.Array(Work),
      accepted: Schema.Int,
      ...counts,
      millis: Schema.optional(Schema.Finite)
    })
  ),
  sections: Schema.Array(Schema.Struct({ ...running, inFlight: Schema.Int })),
  finalizers: Schema.Array(Schema.Struct(running))
})

export const Report: Schema.Codec<report.Report, unknown> = Schema.Struct({
  reason: Reason,
  forced: Schema.Boolean,
  startedAt: Schema.Finite,
  millis: Schema.Finite,
  phases: Schema.Array(Schema.Struct({ phase: Schema.Literals(["LameDuck", "Draining", "Unwinding"]), ...span })),
  listeners: Schema.Array(
    Schema.Struct({ ...listener, ...counts, cutWork: Schema.Array(Schema.String), forced: Schema.Boolean, ...span })
  ),
  sections: Schema.Array(Schema.Struct({ name: Schema.String, ...counts, ...span })),
  finalizers: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      outcome: Schema.Literals(["released", "failed", "timed out", "abandoned"]),
      error: Schema.optional(Schema.String),
      ...span
    })
  ),
  hung: Schema.Array(Schema.String)
})

/**
 * What the schemas encode to, but without them where that is the same: to compile one takes milliseconds, which a process
 * would spend at its end.
 */
export const toJson = <A extends report.Report | report.Status>(value: A): unknown =>
  value.reason === undefined ? value : { ...value, reason: reasonToJson(value.reason) }

const reasonToJson = (reason: phase.Reason): unknown => {
  if (reason._tag !== "Uncaught" && reason._tag !== "Failed") return reason
  // Anything may have been thrown, also what throws when it is looked at.
  const encoded = Result.try(() => Schema.encodeSync(Schema.toCodecJson(Reason))(reason))
  return Result.getOrElse(encoded, () =>
    reason._tag === "Uncaught"
      ? { _tag: reason._tag, error: inWords(reason.error) }
      : { _tag: reason._tag, cause: [{ _tag: "Die", defect: inWords(Cause.squash(reason.cause)) }] }
  )
}
