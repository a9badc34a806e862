from setuptools import setup

setup(cffi_modules=["shardstream/_native/build.py:ffibuilder"])  # ignored if put into setup.cfg
