/**
 * What is compared, and under which name.
 */
export const peers = [
  "http-terminator",
  "stoppable",
  "@godaddy/terminus",
  "http-graceful-shutdown",
  "close-with-grace",
  "fastify"
] as const

export type Peer = (typeof peers)[number]

/**
 * `NodeHttpServer, 0 s` has a `gracefulShutdownTimeout` of zero, since what has no end of its own would take it all.
 * `node:http` is `server.close(() => process.exit(0))`, which destroys WebSockets first, since it knows none;
 * `node:http, 1001` closes them with that code instead, and waits for their clients.
 */
export type Kind = "effect-kms" | "NodeHttpServer" | "NodeHttpServer, 0 s" | "node:http" | "node:http, 1001" | Peer

export type Protocol = "http" | "https" | "http2" | "h2c"

/** What a server of `subject.ts` is told. */
export interface Subject {
  readonly kind: Kind
  readonly protocol: Protocol
  /** It prints `began` once so many requests of `/slow` have. */
  readonly slow?: number
  /** Milliseconds that a connection may be idle; `0` for ever; what Node has where nothing is said. */
  readonly keepAliveTimeout?: number
  /** Collects garbage before it says how much memory it has. */
  readonly collect?: boolean
  /** Bytes of garbage that it makes before it takes requests, and so brings its next collection nearer by. */
  readonly garbage?: number
}

/** What a server says of itself when it gets SIGUSR2. */
export interface Usage {
  /** Of all its threads, user and system, in milliseconds. */
  readonly cpu: number
  readonly rss: number
  readonly heapUsed: number
  readonly external: number
}

/** How long `/slow` takes, in milliseconds. */
export const slowMillis = 2000
