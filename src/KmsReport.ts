/**
 * What a shutdown did, and what is open, as data: with a schema, as text, as a table, and as JSON.
 *
 * `Kms.status` gives the one at any time, `onStopped` and `ShutdownTimeout` the other. Times are in milliseconds, and
 * every number was counted.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import type * as internal from "./internal/report.ts"
import * as schema from "./internal/schema.ts"
import * as internalTable from "./internal/table.ts"
import { ended, now } from "./internal/text.ts"

/**
 * How far the shutdown is, and what is open: every listener with what is in flight on it, every busy section, every
 * finalizer with a name that runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status extends internal.Status {}

/**
 * The schema of `Status`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Status: Schema.Codec<Status, unknown> = schema.Status

/**
 * What a shutdown did: why and how long, what became of every listener, busy section and finalizer with a name, and what
 * had not ended when the process was given up.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report extends internal.Report {}

/**
 * The schema of `Report`.
 *
 * **Example** (Reading the report that a log entry carries)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { KmsReport } from "effect-kms"
 *
 * export const read = Schema.decodeUnknownEffect(Schema.toCodecJson(KmsReport.Report))
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const Report: Schema.Codec<Report, unknown> = schema.Report

const isReport = (value: Report | Status): value is Report => "startedAt" in value

/**
 * In words, a line for each part.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toText = (value: Report | Status): string => (isReport(value) ? ended(value) : now(value))

/**
 * Data that can be written as JSON as it stands: what the schema encodes to.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toJson = (value: Report | Status): unknown => schema.toJson(value)

/**
 * How a table is drawn.
 *
 * @category options
 * @since 0.1.0
 */
export interface TableOptions {
  /** How wide it may be, in characters; 60 to 120 are used. Default 80. */
  readonly columns?: number | undefined
  /** Whether it has colors. Default false. */
  readonly colors?: boolean | undefined
}

/**
 * A table with a timeline: who drained, from when to when. It is what a terminal shows at the end of a shutdown.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toTable = (report: Report, options?: TableOptions): string =>
  internalTable.table(report, { columns: options?.columns ?? 80, colors: options?.colors ?? false })
