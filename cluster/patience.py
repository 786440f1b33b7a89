"""Time limits that only guard against hanging. On a machine that is busy everything takes longer, so all are generous.

None of them is reached in normal work, and none decides a result. Limits that users choose are in the cluster's file.
"""

# To start the scheduler and all workers on this machine. A worker imports the libraries, which takes seconds alone and
# a minute beside twenty others.
START_S = 300

# Tasks fail when there has been no worker for this long: the nannies have given up.
NO_WORKERS_S = 300

# To open a connection on this machine, and to get an answer on it. A process that computes in all threads, on cores
# that others use too, answers late.
COMM_S = 300

# A worker that has sent no sign of life for this long is taken to be gone.
SILENT_WORKER_S = 1800

# To find a scheduler that somebody else started; at most the time that the description gives.
JOIN_S = 30

# For a command of a batch system to answer.
QUEUE_S = 60

# At the end each worker is asked to leave, and ended by force after four fifths of this time. Its blocks are stored, so
# nothing is lost. It is short, because Ctrl-C goes this way too.
LEAVE_S = 5

# For the kernel to end a process that was ended by force.
GONE_S = 60

# For the whole cluster to end.
END_S = 120
