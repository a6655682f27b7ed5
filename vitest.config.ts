import { defineConfig } from 'vitest/config'
import { ClosingLine } from './test/harness/reporter.ts'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/harness/global-setup.ts'],
    reporters: ['default', new ClosingLine()],
    pool: 'forks',
    // Tests wait more than they compute: for servers, heartbeats, bounds that run out. But each may start a handful of processes.
    maxWorkers: 3,
    // Only for what hangs: how fast things are is the bench's, and a busy machine is slow.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 10_000 } },
    // Processes are killed, frozen and flooded here on a machine that others share: one stall must not stop a change. What
    // passes only then is named at the end.
    retry: process.env['CI'] === undefined ? 0 : 1,
  },
})
