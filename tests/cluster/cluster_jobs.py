"""Jobs whose workers tell where they stand. Named apart, so that workers can import it."""

import os
import time


class Tell:
    """Answers what it sees of its place."""

    def build(self):
        return self

    def run(self, task, watch):
        import ray

        from recbatch.engine.resources import cpus_available

        context = ray.get_runtime_context()
        return {
            "node": context.get_node_id(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "threads": cpus_available(),
            "pid": os.getpid(),
        }


class Nap(Tell):
    def run(self, task, watch):
        time.sleep(task)
        return super().run(task, watch)
