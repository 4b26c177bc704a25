/**
 * @since 0.1.0
 */

/**
 * The shutdown itself: supervises a program, and ends it without losing the work in flight.
 *
 * @since 0.1.0
 */
export * as Kms from "./Kms.ts"

/**
 * `/livez` and `/readyz` for an `HttpRouter`.
 *
 * @since 0.1.0
 */
export * as KmsHealth from "./KmsHealth.ts"

/**
 * HTTP/1.1, HTTPS, HTTP/2 and their upgrades, as listeners that drain: a drop-in for `NodeHttpServer`.
 *
 * @since 0.1.0
 */
export * as KmsHttp from "./KmsHttp.ts"

/**
 * Sockets that left their server: WebSockets, tunnels, raw upgrades.
 *
 * @since 0.1.0
 */
export * as KmsHijack from "./KmsHijack.ts"

/**
 * Status and report as data with a schema, as text, as a table and as JSON.
 *
 * @since 0.1.0
 */
export * as KmsReport from "./KmsReport.ts"

/**
 * Lets an Effect `RpcServer` finish its calls.
 *
 * @since 0.1.0
 */
export * as KmsRpc from "./KmsRpc.ts"

/**
 * A whole shutdown in a test, without a process.
 *
 * @since 0.1.0
 */
export * as KmsTest from "./KmsTest.ts"

/**
 * TCP and TLS, as listeners that drain: a drop-in for `NodeSocketServer`.
 *
 * @since 0.1.0
 */
export * as KmsTcp from "./KmsTcp.ts"

/**
 * Unix-domain sockets, as listeners that drain.
 *
 * @since 0.1.0
 */
export * as KmsUnix from "./KmsUnix.ts"
