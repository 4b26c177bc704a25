/**
 * The load of a scenario: how many clients of each kind, and where they go.
 */
import type { Kind } from "./ledger.ts"

export interface Address {
  readonly host: string
  readonly port: number
}

export interface Load {
  readonly seed: number
  readonly http: Address
  /** HTTP/2 in clear text. */
  readonly http2: Address
  /** The way to the same server that takes its time. */
  readonly far?: Address | undefined
  readonly clients: { readonly [K in Kind]?: number }
}

export const clients: Load["clients"] = {
  "keep-alive": 8,
  "one-shot": 3,
  "HTTP/2": 3,
  WebSocket: 4,
  upload: 2,
  events: 4
}

/** Some of each, for a short form. */
export const few: Load["clients"] = {
  "keep-alive": 4,
  "one-shot": 1,
  "HTTP/2": 1,
  WebSocket: 2,
  upload: 1,
  events: 1
}
