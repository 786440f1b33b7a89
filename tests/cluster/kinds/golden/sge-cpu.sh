#!/usr/bin/env bash

#$ -N segment-slide-0a1b2c3d
#$ -q imaging
#$ -P core
#$ -l mem_free=4G
#$ -l h_rt=04:00:00
#$ -cwd
#$ -S /bin/bash
#$ -e /shared/me/logs/$JOB_NAME-$JOB_ID.err
#$ -o /shared/me/logs/$JOB_NAME-$JOB_ID.out
#$ -pe smp 16
export OMP_NUM_THREADS=1
export MKL_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
export THP_MEM_ALLOC_ENABLE=1
export MALLOC_ARENA_MAX=1
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_TRIM_THRESHOLD_=134217728
export PYTHONSAFEPATH=1
export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False
export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False
export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
export DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE=0.98
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES='[]'
export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
export DASK_DISTRIBUTED__NANNY__PRELOAD='[]'
export DASK_DISTRIBUTED__WORKER__PRELOAD='[]'
export DASK_DISTRIBUTED__WORKER__LIFETIME__RESTART=False
export DASK_LOGGING='{"distributed": "info"}'
export DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION=13500s
export DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER=600s
/opt/seg/bin/python -m segment_slide.cluster.kinds.batch_worker distributed.cli.dask_worker tls://10.0.0.1:8786 --name segment-slide-0a1b2c3d-0 --nthreads 5 --memory-limit 16106127360 --death-timeout 60 --nworkers 4 --nanny --preload segment_slide.cluster.preload --dashboard-address 127.0.0.1:0 --no-dashboard --protocol tls:// --tls-ca-file /shared/me/ca_file.pem --tls-cert /shared/me/cert.pem --tls-key /shared/me/key.pem
